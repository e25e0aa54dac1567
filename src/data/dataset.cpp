#include "data/dataset.h"

#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"

namespace triptych {
namespace {

bool is_file(const std::filesystem::path& path) {
  std::error_code ignored;  // what cannot be looked at is not there
  return std::filesystem::is_regular_file(path, ignored);
}

}  // namespace

Dataset::Dataset(std::vector<RecordSource> sources, std::filesystem::path run_folder)
    : sources_(std::move(sources)), run_folder_(std::move(run_folder)) {
  for (auto& source : sources_) {
    const auto written = source.path.string();
    source.path = run_folder_ / source.path;
    if (source.media.empty()) {
      source.media = source.path.parent_path();
    } else {
      source.media = run_folder_ / source.media;
      require<DataError>(std::filesystem::is_directory(source.media), source.media.string(),
                         ": found no folder; expected that of the media of ", written);
    }
    files_.emplace_back(source.path, written);
  }
}

int64_t Dataset::size() const {
  int64_t total = 0;
  for (const auto& file : files_) total += file.size();
  return total;
}

std::vector<SourceShare> Dataset::shares() const {
  std::vector<SourceShare> shares;
  for (int32_t s = 0; s < num_sources(); ++s) {
    const auto& source = sources_[static_cast<size_t>(s)];
    shares.push_back({size(s), source.weight, source.repeat});
  }
  return shares;
}

Conversation Dataset::conversation(RecordRef ref) const {
  const auto& source = sources_[static_cast<size_t>(ref.source)];
  const auto& records = file(ref.source);
  const auto where = records.origin(ref.record);
  auto conversation =
      convert_record(parse_json(records.text(ref.record), records.name(),
                                {.first_line = static_cast<int64_t>(records.line(ref.record))}),
                     where, source.format, source.names);
  for (auto& message : conversation.messages) {
    for (auto& part : message.parts) {
      if (part.kind == PartKind::kText) continue;
      for (auto& frame : part.frames) frame = find_media(frame, ref.source, where);
      if (part.frames.empty()) part.media = find_media(part.media, ref.source, where);
    }
  }
  return conversation;
}

std::string Dataset::find_media(const std::string& written, int32_t source,
                                const std::string& origin) const {
  if (written.starts_with("data:")) return written;
  const auto first = sources_[static_cast<size_t>(source)].media / written;
  if (is_file(first)) return first.string();
  const auto second = run_folder_ / written;
  if (is_file(second)) return second.string();
  const auto shown = [](const std::string& path) { return escape_controls(path, true); };
  fail<DataError>(origin, ": '", shown(written), "' is missing; looked for ", shown(first.string()),
                  first == second ? "" : " and ", first == second ? "" : shown(second.string()));
}

}  // namespace triptych
