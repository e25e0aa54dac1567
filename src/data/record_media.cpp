#include "data/record_media.h"

#include <algorithm>

#include "base/format.h"
#include "base/progress.h"

namespace triptych {
namespace {

constexpr std::string_view kImageTag = "<image>", kVideoTag = "<video>";
static_assert(kImageTag.size() == kVideoTag.size());

}  // namespace

std::string RecordMedia::path_of(const Json* value, const std::string& field) const {
  if (value != nullptr && value->is_object()) {
    for (const std::string_view key : {"url", "path"}) {
      if (const auto* inner = member(*value, key)) {
        return path_of(inner, fmt::format("{}.{}", field, key));
      }
    }
    errors_.bad(field, value, "a path, or an object with 'url' or 'path'");
  }
  const auto& path = errors_.string_at(value, field);
  if (path.empty()) errors_.bad(field, value, "a path");
  if (path.find('\0') != std::string::npos) errors_.bad(field, value, "a path without zero bytes");
  if (path.starts_with("data:")) {
    if (path.find(";base64,") == std::string::npos)
      errors_.bad(field, value, "data:...;base64,...");
    return path;
  }
  if (path.starts_with("file://")) return path.substr(7);
  if (const auto scheme = path.find("://"); scheme != std::string::npos && scheme < 12) {
    errors_.bad(field, value, "a file: nothing is fetched from the network; download it first");
  }
  return path;
}

Part RecordMedia::part(PartKind kind, const Json* value, const std::string& field) const {
  Part part{.kind = kind, .text = {}, .media = {}};
  if (kind == PartKind::kVideo && value != nullptr && value->is_array()) {
    if (value->empty()) errors_.bad(field, value, "a video, or its frames");
    for (size_t i = 0; i < value->size(); ++i) {
      part.frames.push_back(path_of(&(*value)[i], fmt::format("{}[{}]", field, i)));
    }
    return part;
  }
  part.media = path_of(value, field);
  return part;
}

void RecordMedia::read_columns(const Json& record, RecordFormat format, const RecordNames& names) {
  const bool llava = format == RecordFormat::kLlava;
  const bool any = format == RecordFormat::kAuto;
  if (llava || any) {
    read_column(record, images_, "image");
    read_column(record, videos_, "video");
  }
  if (!llava) {
    read_column(record, images_, names.images.empty() ? "images" : names.images);
    read_column(record, videos_, names.videos.empty() ? "videos" : names.videos);
  }
}

void RecordMedia::read_column(const Json& record, Column& column, const std::string& name) {
  const auto* value = member(record, name);
  if (value == nullptr || (value->is_array() && value->empty())) return;
  if (value->is_string() && value->get_ref<const std::string&>().empty()) return;
  if (!column.name.empty()) {
    errors_.bad(name, value, fmt::format("nothing: '{}' has media already", column.name));
  }
  column.name = name;
  if (!value->is_array()) {
    column.items.push_back(part(column.kind, value, name));
    return;
  }
  for (size_t i = 0; i < value->size(); ++i) {
    column.items.push_back(part(column.kind, &(*value)[i], fmt::format("{}[{}]", name, i)));
  }
}

void RecordMedia::take(PartKind kind, Message& message) {
  auto& column = kind == PartKind::kImage ? images_ : videos_;
  ++column.tags;
  if (column.taken < column.items.size()) message.parts.push_back(column.items[column.taken++]);
}

void RecordMedia::add_tagged(std::string_view text, Message& message) {
  while (!text.empty()) {
    const auto image = text.find(kImageTag), video = text.find(kVideoTag);
    const auto tag = std::min(image, video);
    if (tag != 0) {
      message.parts.push_back({.kind = PartKind::kText, .text = std::string(text.substr(0, tag))});
    }
    if (tag == std::string_view::npos) return;
    take(image < video ? PartKind::kImage : PartKind::kVideo, message);
    text.remove_prefix(tag + kImageTag.size());
  }
}

void RecordMedia::place_untagged(std::vector<Message>& turns) {
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

void RecordMedia::check_columns() const {
  for (const auto* column : {&images_, &videos_}) {
    if (column->tags == column->items.size()) continue;
    const bool image = column->kind == PartKind::kImage;
    errors_.bad_words(
        column->name.empty() ? (image ? "images" : "videos") : column->name,
        fmt::format(
            "{} for {} {} tag{}",
            counted(static_cast<int64_t>(column->items.size()), image ? "picture" : "video"),
            column->tags, image ? kImageTag : kVideoTag, column->tags == 1 ? "" : "s"),
        "as many as tags");
  }
}

}  // namespace triptych
