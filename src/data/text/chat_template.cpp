#include "data/text/chat_template.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace triptych {
namespace {

/// Collects segments and joins neighbours that differ in nothing but their text.
class Writer {
 public:
  Writer(int64_t message, std::string role) : message_(message), role_(std::move(role)) {}

  void text(std::string_view text, bool answer, bool trainable) {
    if (text.empty()) return;
    if (!segments_.empty()) {
      Segment& last = segments_.back();
      if (last.kind == PartKind::kText && last.answer == answer && last.trainable == trainable) {
        last.text += text;
        return;
      }
    }
    segments_.push_back({.text = std::string(text),
                         .message = message_,
                         .role = role_,
                         .trainable = trainable,
                         .answer = answer});
  }

  void media(PartKind kind, int64_t number, bool answer, bool trainable) {
    segments_.push_back({.kind = kind,
                         .media = number,
                         .message = message_,
                         .role = role_,
                         .trainable = trainable,
                         .answer = answer});
  }

  void append_to(std::vector<Segment>& all) {
    std::ranges::move(segments_, std::back_inserter(all));
  }

 private:
  int64_t message_;
  std::string role_;
  std::vector<Segment> segments_;
};

void check_message(const ChatTemplate& chat, const Message& message, const std::string& place) {
  require<DataError>(chat.roles.empty() || std::ranges::count(chat.roles, message.role) > 0, place,
                     ": role '", message.role, "' is not known to the template ", chat.name);
  for (const auto& part : message.parts) {
    if (part.kind != PartKind::kText) {
      require<DataError>(!chat.media_open.empty(), place, ": the template ", chat.name,
                         " takes no pictures or videos");
      continue;
    }
    for (const auto& pad : {chat.image_pad, chat.video_pad}) {
      require<DataError>(pad.empty() || part.text.find(pad) == std::string::npos, place,
                         ": the text spells '", pad, "', which stands for a picture or video");
    }
  }
}

std::string place_of(const Conversation& conversation, size_t message) {
  return conversation.origin + (conversation.origin.empty() ? "" : ": ") + "message " +
         std::to_string(message + 1);
}

/// Counts media over the whole conversation, for their numbers and for "Picture 1: ".
struct MediaCount {
  int64_t images = 0, videos = 0;
};

/// One turn: its opening is prompt; in an assistant's turn what follows is the answer.
void render_turn(const ChatTemplate& chat, const Message& message, int64_t number,
                 const RenderOptions& options, bool learn, MediaCount& count,
                 std::vector<Segment>& segments) {
  const bool answer = message.role == "assistant";
  const bool all = options.learn == Learn::kAll && learn;
  Writer writer(number, message.role);
  writer.text(chat.turn_open + message.role + chat.role_close, false, all);
  for (const auto& part : message.parts) {
    if (part.kind == PartKind::kText) {
      writer.text(part.text, answer, learn);
      continue;
    }
    const bool image = part.kind == PartKind::kImage;
    const int64_t media = count.images + count.videos;
    const int64_t nth = image ? ++count.images : ++count.videos;
    if (options.add_vision_id) {
      writer.text((image ? "Picture " : "Video ") + std::to_string(nth) + ": ", answer, learn);
    }
    writer.text(chat.media_open, answer, learn);
    writer.media(part.kind, media, answer, learn);
    writer.text(chat.media_close, answer, learn);
  }
  writer.text(chat.turn_close, answer, learn);
  writer.append_to(segments);
}

}  // namespace

std::vector<Segment> render(const ChatTemplate& chat, const Conversation& conversation,
                            const RenderOptions& options) {
  const auto& messages = conversation.messages;
  require<DataError>(!messages.empty(), conversation.origin, ": there are no messages");
  size_t last_answer = messages.size();
  for (size_t i = 0; i < messages.size(); ++i) {
    check_message(chat, messages[i], place_of(conversation, i));
    if (messages[i].role == "assistant") last_answer = i;
  }
  const auto learned = [&](size_t i) {
    if (messages[i].learn) return *messages[i].learn;
    switch (options.learn) {
      case Learn::kAll:
        return true;
      case Learn::kLast:
        return i == last_answer;
      case Learn::kAssistant:
        break;
    }
    return messages[i].role == "assistant";
  };
  std::vector<Segment> segments;
  MediaCount count;
  if (chat.default_system && messages.front().role != "system") {
    const Message system{.role = "system", .parts = {{.text = *chat.default_system}}};
    render_turn(chat, system, -1, options, options.learn == Learn::kAll, count, segments);
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    render_turn(chat, messages[i], static_cast<int64_t>(i), options, learned(i), count, segments);
  }
  if (options.add_generation_prompt) {
    Writer writer(-1, "assistant");
    writer.text(chat.turn_open + "assistant" + chat.role_close, false, false);
    writer.append_to(segments);
  }
  return segments;
}

std::string render_text(const ChatTemplate& chat, const Conversation& conversation,
                        const RenderOptions& options) {
  std::string text;
  for (const auto& segment : render(chat, conversation, options)) {
    switch (segment.kind) {
      case PartKind::kText:
        text += segment.text;
        break;
      case PartKind::kImage:
        text += chat.image_pad;
        break;
      case PartKind::kVideo:
        text += chat.video_pad;
        break;
    }
  }
  return text;
}

}  // namespace triptych
