#include "data/records.h"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/format.h"

namespace triptych {
namespace {

constexpr std::string_view kImageTag = "<image>", kVideoTag = "<video>";

/// The first bytes of UTF-8 text, cut between characters.
std::string cut(const std::string& text, size_t bytes) {
  size_t end = std::min(text.size(), bytes);
  while (end < text.size() && end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) {
    --end;
  }
  return text.substr(0, end);
}

/// A value in few words, for messages.
std::string shown(const Json* value) {
  if (value == nullptr) return "nothing";
  if (value->is_string()) {
    const auto& text = value->get_ref<const std::string&>();
    if (text.empty()) return "an empty string";
    const auto begin = cut(text, 40);
    auto quoted = dump_json(Json(begin));  // escapes control characters
    return begin.size() < text.size() ? quoted + "..." : quoted;
  }
  if (value->is_null()) return "null";
  if (value->is_object()) return "an object";
  if (value->is_array()) return value->empty() ? "an empty list" : "a list";
  return dump_json(*value);
}

bool one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

const Json* member(const Json& object, std::string_view key) {
  const auto it = object.find(std::string(key));
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

/// The media of a record's columns, taken one by one as their tags come up.
struct Column {
  PartKind kind = PartKind::kImage;
  std::string name;  // of the column; empty: the record has none
  std::vector<Part> items;
  size_t taken = 0;
  size_t tags = 0;  // may exceed the items
};

class Converter {
 public:
  Converter(const Json& record, std::string_view origin, RecordFormat format,
            const RecordNames& names)
      : record_(record), origin_(origin), format_(format), names_(names) {}

  Conversation run() {
    if (!record_.is_object()) bad("", &record_, "an object");
    refuse_unsupported();
    read_columns();
    read_turns();
    check_turns();
    place_untagged();
    check_columns();
    conversation_.origin = origin_;
    return std::move(conversation_);
  }

 private:
  [[noreturn]] void bad(std::string_view field, const Json* found,
                        std::string_view expected) const {
    bad_words(field, shown(found), expected);
  }
  [[noreturn]] void bad_words(std::string_view field, std::string_view found,
                              std::string_view expected) const {
    fail<DataError>(origin_, ": ", field, field.empty() ? "" : ": ", "found ", found, "; expected ",
                    expected);
  }
  const std::string& string_at(const Json* value, std::string_view field) const {
    if (value == nullptr || !value->is_string()) bad(field, value, "a string");
    return value->get_ref<const std::string&>();
  }

  /// What would change the training text if it were passed over in silence.
  void refuse_unsupported() const {
    for (const std::string_view key : {"tools", "audios", "audio"}) {
      const auto* value = member(record_, key);
      if (value == nullptr || ((value->is_array() || value->is_string()) && value->empty()))
        continue;
      if (value->is_string() && value->get_ref<const std::string&>() == "[]") continue;
      bad(key, value, "no such column: the models here take text, images and videos");
    }
    const auto* kwargs = member(record_, "chat_template_kwargs");
    if (kwargs != nullptr && !kwargs->empty()) {
      bad("chat_template_kwargs", kwargs, "none; limits for all records stand under [data]");
    }
  }

  // --- media -------------------------------------------------------------------------------------

  /// A picture's or video's place: a path, or a data: URI as it is.
  std::string media_path(const Json* value, const std::string& field) const {
    if (value != nullptr && value->is_object()) {
      for (const std::string_view key : {"url", "path"}) {
        if (const auto* inner = member(*value, key)) {
          return media_path(inner, fmt::format("{}.{}", field, key));
        }
      }
      bad(field, value, "a path, or an object with 'url' or 'path'");
    }
    const auto& path = string_at(value, field);
    if (path.empty()) bad(field, value, "a path");
    if (path.find('\0') != std::string::npos) bad(field, value, "a path without zero bytes");
    if (path.starts_with("data:")) {
      if (path.find(";base64,") == std::string::npos) bad(field, value, "data:...;base64,...");
      return path;
    }
    if (path.starts_with("file://")) return path.substr(7);
    if (const auto scheme = path.find("://"); scheme != std::string::npos && scheme < 12) {
      bad(field, value, "a file: nothing is fetched from the network; download it first");
    }
    return path;
  }

  Part media_part(PartKind kind, const Json* value, const std::string& field) const {
    Part part{.kind = kind, .text = {}, .media = {}};
    if (kind == PartKind::kVideo && value != nullptr && value->is_array()) {
      if (value->empty()) bad(field, value, "a video, or its frames");
      for (size_t i = 0; i < value->size(); ++i) {
        part.frames.push_back(media_path(&(*value)[i], fmt::format("{}[{}]", field, i)));
      }
      return part;
    }
    part.media = media_path(value, field);
    return part;
  }

  void read_columns() {
    const bool llava = format_ == RecordFormat::kLlava;
    const bool any = format_ == RecordFormat::kAuto;
    if (llava || any) {
      read_column(images_, "image");
      read_column(videos_, "video");
    }
    if (!llava) {
      read_column(images_, names_.images.empty() ? "images" : names_.images);
      read_column(videos_, names_.videos.empty() ? "videos" : names_.videos);
    }
  }

  void read_column(Column& column, const std::string& name) {
    const auto* value = member(record_, name);
    if (value == nullptr || (value->is_array() && value->empty())) return;
    if (value->is_string() && value->get_ref<const std::string&>().empty()) return;
    if (!column.name.empty()) {
      bad(name, value, fmt::format("nothing: '{}' has media already", column.name));
    }
    column.name = name;
    if (!value->is_array()) {
      column.items.push_back(media_part(column.kind, value, name));
      return;
    }
    for (size_t i = 0; i < value->size(); ++i) {
      column.items.push_back(media_part(column.kind, &(*value)[i], fmt::format("{}[{}]", name, i)));
    }
  }

  /// The medium for a tag; beyond the column's end tags are only counted, check_columns complains.
  void take(Column& column, Message& message) {
    ++column.tags;
    if (column.taken < column.items.size()) message.parts.push_back(column.items[column.taken++]);
  }

  /// Text with tags.
  void add_tagged(std::string_view text, Message& message) {
    while (!text.empty()) {
      const auto image = text.find(kImageTag), video = text.find(kVideoTag);
      const auto tag = std::min(image, video);
      if (tag != 0) {
        message.parts.push_back(
            {.kind = PartKind::kText, .text = std::string(text.substr(0, tag))});
      }
      if (tag == std::string_view::npos) return;
      take(image < video ? images_ : videos_, message);
      text.remove_prefix(tag + kImageTag.size());
    }
  }
  static_assert(kImageTag.size() == kVideoTag.size());

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
    if (columns.size() == 1) bad_words("", no_turns(), fmt::format("'{}'", columns[0]));
    bad_words("", no_turns(),
              "'messages', 'conversations', 'conversation', 'query' with 'response', or "
              "'instruction' with 'output'");
  }

  std::string no_turns() const {
    if (record_.empty()) return "an empty object";
    std::string keys;
    for (const auto& item : record_.items()) {
      if (keys.size() > 60) return fmt::format("the keys {}...", keys);
      keys += fmt::format("{}{}", keys.empty() ? "" : ", ", dump_json(Json(cut(item.key(), 30))));
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
    const auto& text = string_at(value, name);
    if (text.empty()) return;
    add_tagged(text, begin_turn("system"));
    system_column_ = true;
  }

  void read_list(const Json& list, const std::string& column) {
    if (!list.is_array() || list.empty()) bad(column, &list, "a list of turns");
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
    if (!turn.is_object()) bad(field, &turn, "an object");
    const auto role_key = turn_key(turn, names_.role, "role", "from");
    const auto content_key = turn_key(turn, names_.content, "content", "value");
    const auto role_field = fmt::format("{}.{}", field, role_key);
    const auto content_field = fmt::format("{}.{}", field, content_key);
    lenient_ = lenient_ || (role_key == "role" && format_ != RecordFormat::kShareGpt);

    const auto* role = member(turn, role_key);
    if (role == nullptr && !turn.contains(role_key)) {
      bad(role_field, nullptr, "a role; a turn has 'role' and 'content', or 'from' and 'value'");
    }
    auto& message = begin_turn(normal_role(string_at(role, role_field), role_field));
    if (const auto* calls = member(turn, "tool_calls"); calls != nullptr && !calls->empty()) {
      bad(field + ".tool_calls", calls, "none; write a call as text");
    }
    if (const auto* loss = member(turn, "loss")) read_loss(*loss, field + ".loss", message);

    const auto* content = member(turn, content_key);
    if (content != nullptr && content->is_array()) {
      for (size_t i = 0; i < content->size(); ++i) {
        read_part((*content)[i], fmt::format("{}[{}]", content_field, i), message);
      }
    } else if (content != nullptr && content->is_string()) {
      add_tagged(content->get_ref<const std::string&>(), message);
    } else {
      bad(content_field, content, "a string, or a list of parts");
    }
  }

  void read_loss(const Json& loss, const std::string& field, Message& message) const {
    if (!loss.is_boolean()) bad(field, &loss, "true or false");
    const bool learn = loss.get<bool>();
    if (learn && message.role != "assistant") bad(field, &loss, "false on a turn of this role");
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
    bad(field, &shown_word,
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
    if (!part.is_object()) bad(field, &part, "an object with 'type'");
    const auto* type = member(part, "type");
    const auto kind = type != nullptr ? string_at(type, field + ".type") : part_kind(part);
    if (kind == "text") {
      const auto& text = string_at(member(part, "text"), field + ".text");
      if (!text.empty()) message.parts.push_back({.kind = PartKind::kText, .text = text});
      return;
    }
    const bool image = kind == "image" || kind == "image_url";
    if (!image && kind != "video" && kind != "video_url") {
      bad(field + ".type", type, "text, image, image_url or video");
    }
    for (const std::string_view key : {"image", "image_url", "video", "video_url", "url", "path"}) {
      const auto* source = member(part, key);
      if (source == nullptr) continue;
      message.parts.push_back(media_part(image ? PartKind::kImage : PartKind::kVideo, source,
                                         fmt::format("{}.{}", field, key)));
      return;
    }
    take(image ? images_ : videos_, message);
  }

  static std::string part_kind(const Json& part) {
    for (const std::string_view key : {"image", "image_url", "video", "video_url", "text"}) {
      if (member(part, key) != nullptr) return std::string(key);
    }
    return "nothing";
  }

  void add_pair(const Json* question, const std::string& question_field, const Json* answer,
                const std::string& answer_field) {
    add_tagged(string_at(question, question_field), begin_turn("user"));
    add_tagged(string_at(answer, answer_field), begin_turn("assistant"));
  }

  void read_pairs(const Json& pairs) {
    if (!pairs.is_array() || pairs.empty()) bad("conversation", &pairs, "a list of pairs");
    read_system_column();
    for (size_t i = 0; i < pairs.size(); ++i) {
      const auto field = fmt::format("conversation[{}]", i);
      if (!pairs[i].is_object()) bad(field, &pairs[i], "an object with 'human' and 'assistant'");
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
      if (!history->is_array()) bad("history", history, "a list of [question, answer]");
      for (size_t i = 0; i < history->size(); ++i) {
        const auto& pair = (*history)[i];
        const auto field = fmt::format("history[{}]", i);
        if (!pair.is_array() || pair.size() != 2) bad(field, &pair, "[question, answer]");
        add_pair(&pair[0], field + "[0]", &pair[1], field + "[1]");
      }
    }
    Json text = string_at(member(record_, question), question);
    if (const auto* more = input.empty() ? nullptr : member(record_, input)) {
      const auto& words = string_at(more, input);
      if (!words.empty()) text = text.get<std::string>() + "\n" + words;
    }
    add_pair(&text, question, member(record_, answer), answer);
  }

  // --- what a conversation must be ---------------------------------------------------------------

  void check_turns() const {
    const auto& turns = conversation_.messages;
    const auto turn_words = [&](size_t i) {
      return fmt::format("turn {}", i - (system_column_ ? 1 : 0));
    };
    size_t i = turns[0].role == "system" ? 1 : 0;
    bool answered = true;  // a question may follow
    for (; i < turns.size(); ++i) {
      const auto& role = turns[i].role;
      if (role == "system") {
        bad_words(turn_words(i), system_column_ ? "system beside a system column" : "system",
                  "a system turn only as the first, once");
      }
      if (role == "assistant") {
        if (answered && !(lenient_ && i > 0 && turns[i - 1].role == "assistant")) {
          bad_words(turn_words(i), "assistant", "user");
        }
        answered = true;
      } else {
        const bool follows_call =
            role == "tool" && i > 0 && turns[i - 1].role == "tool" && lenient_;
        if (!answered && !follows_call) bad_words(turn_words(i), role, "assistant");
        if (role == "tool" && (i == 0 || turns[i - 1].role == "system")) {
          bad_words(turn_words(i), "tool", "user");
        }
        answered = false;
      }
    }
    if (turns.back().role != "assistant") {
      bad_words(fmt::format("turn {}, the last", turns.size() - 1 - (system_column_ ? 1 : 0)),
                turns.back().role, "assistant");
    }
  }

  /// Media of a column that no tag names at all: in front of the first user turn.
  void place_untagged() {
    if (!lenient_) return;
    auto& turns = conversation_.messages;
    const auto first = std::find_if(turns.begin(), turns.end(),
                                    [](const Message& turn) { return turn.role == "user"; });
    if (first == turns.end()) return;
    auto where = first->parts.begin();
    for (auto* column : {&images_, &videos_}) {
      if (column->tags > 0) continue;
      where = first->parts.insert(where, column->items.begin(), column->items.end()) +
              static_cast<std::ptrdiff_t>(column->items.size());
      column->tags = column->taken = column->items.size();
    }
  }

  void check_columns() const {
    for (const auto* column : {&images_, &videos_}) {
      if (column->tags == column->items.size()) continue;
      const bool image = column->kind == PartKind::kImage;
      bad_words(column->name.empty() ? (image ? "images" : "videos") : column->name,
                fmt::format("{} media for {} {} tag{}", column->items.size(), column->tags,
                            image ? kImageTag : kVideoTag, column->tags == 1 ? "" : "s"),
                "as many as tags");
    }
  }

  const Json& record_;
  std::string origin_;
  RecordFormat format_;
  const RecordNames& names_;
  Column images_{.kind = PartKind::kImage, .name = {}, .items = {}};
  Column videos_{.kind = PartKind::kVideo, .name = {}, .items = {}};
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
