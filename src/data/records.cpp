#include "data/records.h"

#include <algorithm>
#include <initializer_list>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/format.h"
#include "data/record_media.h"

namespace triptych {
namespace {

bool one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

class Converter {
 public:
  Converter(const Json& record, std::string_view origin, RecordFormat format,
            const RecordNames& names)
      : record_(record), errors_(origin), format_(format), names_(names) {}

  Conversation run() {
    if (!record_.is_object()) errors_.bad("", &record_, "an object");
    refuse_unsupported();
    media_.read_columns(record_, format_, names_);
    read_turns();
    check_turns();
    if (lenient_) media_.place_untagged(conversation_.messages);
    media_.check_columns();
    conversation_.origin = errors_.origin();
    return std::move(conversation_);
  }

 private:
  /// What would change the training text if it were passed over in silence.
  void refuse_unsupported() const {
    for (const std::string_view key : {"tools", "audios", "audio"}) {
      const auto* value = member(record_, key);
      if (value == nullptr || ((value->is_array() || value->is_string()) && value->empty()))
        continue;
      if (value->is_string() && value->get_ref<const std::string&>() == "[]") continue;
      errors_.bad(key, value, "no such column: the models here take text, images and videos");
    }
    const auto* kwargs = member(record_, "chat_template_kwargs");
    if (kwargs != nullptr && !kwargs->empty()) {
      errors_.bad("chat_template_kwargs", kwargs,
                  "none; limits for all records stand under [data]");
    }
  }

  // --- turns -------------------------------------------------------------------------------------

  void read_turns() {
    const auto only = [&](std::initializer_list<RecordFormat> formats) {
      return format_ == RecordFormat::kAuto ||
             std::find(formats.begin(), formats.end(), format_) != formats.end();
    };
    using enum RecordFormat;
    std::vector<std::string> columns;
    if (!names_.messages.empty()) {
      columns = {names_.messages};
    } else {
      if (only({kMessages, kShareGpt})) columns.emplace_back("messages");
      if (only({kLlava, kShareGpt})) columns.emplace_back("conversations");
    }
    for (const auto& name : columns) {
      if (const auto* list = member(record_, name)) return read_list(*list, name);
    }
    if (names_.messages.empty() && only({kShareGpt})) {
      if (const auto* pairs = member(record_, "conversation")) return read_pairs(*pairs);
      if (record_.contains("query") || record_.contains("response")) {
        return read_question("query", "", "response");
      }
      if (record_.contains("instruction") || record_.contains("output")) {
        return read_question("instruction", "input", "output");
      }
    }
    if (columns.size() == 1) errors_.bad_words("", no_turns(), fmt::format("'{}'", columns[0]));
    errors_.bad_words("", no_turns(),
                      "'messages', 'conversations', 'conversation', 'query' with 'response', or "
                      "'instruction' with 'output'");
  }

  std::string no_turns() const {
    if (record_.empty()) return "an empty object";
    std::string keys;
    for (const auto& item : record_.items()) {
      if (keys.size() > 60) return fmt::format("the keys {}...", keys);
      keys +=
          fmt::format("{}{}", keys.empty() ? "" : ", ", dump_json(Json(cut_text(item.key(), 30))));
    }
    return fmt::format("the keys {}", keys);
  }

  Message& begin_turn(std::string role) {
    conversation_.messages.push_back({.role = std::move(role), .parts = {}, .learn = {}});
    return conversation_.messages.back();
  }

  void read_system_column() {
    const auto name = names_.system.empty() ? std::string("system") : names_.system;
    const auto* value = member(record_, name);
    if (value == nullptr) return;
    const auto& text = errors_.string_at(value, name);
    if (text.empty()) return;
    media_.add_tagged(text, begin_turn("system"));
    system_column_ = true;
  }

  void read_list(const Json& list, const std::string& column) {
    if (!list.is_array() || list.empty()) errors_.bad(column, &list, "a list of turns");
    read_system_column();
    for (size_t i = 0; i < list.size(); ++i) {
      read_turn(list[i], fmt::format("{}[{}]", column, i));
    }
  }

  /// The key of a turn: the file's own name, or whichever of the usual two is there.
  std::string turn_key(const Json& turn, const std::string& own, std::string_view openai,
                       std::string_view sharegpt) const {
    if (!own.empty()) return own;
    if (format_ == RecordFormat::kMessages) return std::string(openai);
    if (format_ == RecordFormat::kLlava) return std::string(sharegpt);
    return std::string(turn.contains(std::string(openai)) ? openai : sharegpt);
  }

  void read_turn(const Json& turn, const std::string& field) {
    if (!turn.is_object()) errors_.bad(field, &turn, "an object");
    const auto role_key = turn_key(turn, names_.role, "role", "from");
    const auto content_key = turn_key(turn, names_.content, "content", "value");
    const auto role_field = fmt::format("{}.{}", field, role_key);
    const auto content_field = fmt::format("{}.{}", field, content_key);
    lenient_ = lenient_ || (role_key == "role" && format_ != RecordFormat::kShareGpt);

    const auto* role = member(turn, role_key);
    if (role == nullptr && !turn.contains(role_key)) {
      errors_.bad(role_field, nullptr,
                  "a role; a turn has 'role' and 'content', or 'from' and 'value'");
    }
    auto& message = begin_turn(normal_role(errors_.string_at(role, role_field), role_field));
    if (const auto* calls = member(turn, "tool_calls"); calls != nullptr && !calls->empty()) {
      errors_.bad(field + ".tool_calls", calls, "none; write a call as text");
    }
    if (const auto* loss = member(turn, "loss")) read_loss(*loss, field + ".loss", message);

    const auto* content = member(turn, content_key);
    if (content != nullptr && content->is_array()) {
      for (size_t i = 0; i < content->size(); ++i) {
        read_part((*content)[i], fmt::format("{}[{}]", content_field, i), message);
      }
    } else if (content != nullptr && content->is_string()) {
      media_.add_tagged(content->get_ref<const std::string&>(), message);
    } else {
      errors_.bad(content_field, content, "a string, or a list of parts");
    }
  }

  void read_loss(const Json& loss, const std::string& field, Message& message) const {
    if (!loss.is_boolean()) errors_.bad(field, &loss, "true or false");
    const bool learn = loss.get<bool>();
    if (learn && message.role != "assistant")
      errors_.bad(field, &loss, "false on a turn of this role");
    if (message.role == "assistant") message.learn = learn;
  }

  std::string normal_role(const std::string& word, const std::string& field) const {
    const auto is = [&](const std::string& own, std::initializer_list<std::string_view> usual) {
      return own.empty() ? one_of(word, usual) : word == own;
    };
    if (is(names_.user, {"user", "human"})) return "user";
    if (is(names_.assistant, {"assistant", "gpt", "bot"})) return "assistant";
    if (is(names_.system_role, {"system"})) return "system";
    if (is(names_.observation, {"tool", "observation", "tool_response", "function_response"})) {
      return "tool";
    }
    if (is(names_.function_call, {"function_call", "tool_call"})) return "assistant";
    const Json shown_word(word);
    const auto own = [](const std::string& name, std::string_view usual) {
      return name.empty() ? std::string(usual) : name;
    };
    errors_.bad(
        field, &shown_word,
        fmt::format("{}, {}, {} or {}", own(names_.user, "user (human)"),
                    own(names_.assistant, "assistant (gpt)"), own(names_.system_role, "system"),
                    own(names_.observation, "tool (observation)")));
  }

  /// One part of a list content. Text is taken literally here; a medium without a source stands for
  /// the next of its column.
  void read_part(const Json& part, const std::string& field, Message& message) {
    if (part.is_string()) {
      message.parts.push_back({.kind = PartKind::kText, .text = part.get<std::string>()});
      return;
    }
    if (!part.is_object()) errors_.bad(field, &part, "an object with 'type'");
    const auto* type = member(part, "type");
    const auto kind = type != nullptr ? errors_.string_at(type, field + ".type") : part_kind(part);
    if (kind == "text") {
      const auto& text = errors_.string_at(member(part, "text"), field + ".text");
      if (!text.empty()) message.parts.push_back({.kind = PartKind::kText, .text = text});
      return;
    }
    const bool image = kind == "image" || kind == "image_url";
    if (!image && kind != "video" && kind != "video_url") {
      errors_.bad(field + ".type", type, "text, image, image_url or video");
    }
    for (const std::string_view key : {"image", "image_url", "video", "video_url", "url", "path"}) {
      const auto* source = member(part, key);
      if (source == nullptr) continue;
      message.parts.push_back(media_.part(image ? PartKind::kImage : PartKind::kVideo, source,
                                          fmt::format("{}.{}", field, key)));
      return;
    }
    media_.take(image ? PartKind::kImage : PartKind::kVideo, message);
  }

  static std::string part_kind(const Json& part) {
    for (const std::string_view key : {"image", "image_url", "video", "video_url", "text"}) {
      if (member(part, key) != nullptr) return std::string(key);
    }
    return "nothing";
  }

  void add_pair(const Json* question, const std::string& question_field, const Json* answer,
                const std::string& answer_field) {
    media_.add_tagged(errors_.string_at(question, question_field), begin_turn("user"));
    media_.add_tagged(errors_.string_at(answer, answer_field), begin_turn("assistant"));
  }

  void read_pairs(const Json& pairs) {
    if (!pairs.is_array() || pairs.empty()) errors_.bad("conversation", &pairs, "a list of pairs");
    read_system_column();
    for (size_t i = 0; i < pairs.size(); ++i) {
      const auto field = fmt::format("conversation[{}]", i);
      if (!pairs[i].is_object())
        errors_.bad(field, &pairs[i], "an object with 'human' and 'assistant'");
      add_pair(member(pairs[i], "human"), field + ".human", member(pairs[i], "assistant"),
               field + ".assistant");
    }
  }

  /// One question and answer in columns, after the pairs of a history.
  void read_question(const std::string& question, const std::string& input,
                     const std::string& answer) {
    lenient_ = true;
    read_system_column();
    if (const auto* history = member(record_, "history")) {
      if (!history->is_array()) errors_.bad("history", history, "a list of [question, answer]");
      for (size_t i = 0; i < history->size(); ++i) {
        const auto& pair = (*history)[i];
        const auto field = fmt::format("history[{}]", i);
        if (!pair.is_array() || pair.size() != 2) errors_.bad(field, &pair, "[question, answer]");
        add_pair(&pair[0], field + "[0]", &pair[1], field + "[1]");
      }
    }
    Json text = errors_.string_at(member(record_, question), question);
    if (const auto* more = input.empty() ? nullptr : member(record_, input)) {
      const auto& words = errors_.string_at(more, input);
      if (!words.empty()) text = text.get<std::string>() + "\n" + words;
    }
    add_pair(&text, question, member(record_, answer), answer);
  }

  // --- what a conversation must be ---------------------------------------------------------------

  void check_turns() const {
    const auto& turns = conversation_.messages;
    const auto turn_words = [&](size_t i) {
      return fmt::format("turn {}", i + (system_column_ ? 0 : 1));  // from 1, as lines
    };
    size_t i = turns[0].role == "system" ? 1 : 0;
    bool answered = true;  // a question may follow
    for (; i < turns.size(); ++i) {
      const auto& role = turns[i].role;
      if (role == "system") {
        errors_.bad_words(turn_words(i),
                          system_column_ ? "system beside a system column" : "system",
                          "a system turn only as the first, once");
      }
      if (role == "assistant") {
        if (answered && !(lenient_ && i > 0 && turns[i - 1].role == "assistant")) {
          errors_.bad_words(turn_words(i), "assistant", "user");
        }
        answered = true;
      } else {
        const bool follows_call =
            role == "tool" && i > 0 && turns[i - 1].role == "tool" && lenient_;
        if (!answered && !follows_call) errors_.bad_words(turn_words(i), role, "assistant");
        if (role == "tool" && (i == 0 || turns[i - 1].role == "system")) {
          errors_.bad_words(turn_words(i), "tool", "user");
        }
        answered = false;
      }
    }
    if (turns.back().role != "assistant") {
      errors_.bad_words(turn_words(turns.size() - 1) + ", the last", turns.back().role,
                        "assistant");
    }
  }

  const Json& record_;
  const RecordErrors errors_;
  RecordMedia media_{errors_};
  RecordFormat format_;
  const RecordNames& names_;
  bool lenient_ = false;        // the looser rules of role/content records
  bool system_column_ = false;  // the first message came from a column
  Conversation conversation_;
};

}  // namespace

RecordFormat parse_record_format(std::string_view word) {
  if (word == "auto") return RecordFormat::kAuto;
  if (word == "llava") return RecordFormat::kLlava;
  if (word == "sharegpt") return RecordFormat::kShareGpt;
  if (word == "messages") return RecordFormat::kMessages;
  fail<UsageError>("data: format \"", word,
                   "\" is not known here; allowed: auto, llava, sharegpt, messages");
}

Conversation convert_record(const Json& record, std::string_view origin, RecordFormat format,
                            const RecordNames& names) {
  return Converter(record, origin, format, names).run();
}

Conversation parse_record(std::string_view text, std::string_view origin, RecordFormat format,
                          const RecordNames& names) {
  return convert_record(parse_json(text, origin), origin, format, names);
}

}  // namespace triptych
