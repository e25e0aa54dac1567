#include "insight/metrics_tail.h"

#include <sys/stat.h>

#include <algorithm>
#include <fstream>

#include "base/error.h"

namespace triptych::insight {
namespace {

constexpr uint64_t kPiece = 4 << 20;  // bytes read at a time
constexpr size_t kLineLimit = 64 << 10;

/// The numbers and short words of one line; null when it is no such row.
Json parse_row(std::string_view line) {
  if (line.size() > kLineLimit) return nullptr;
  try {
    Json row = parse_json(line, "metrics", {.bytes = kLineLimit, .depth = 4});
    if (!row.is_object()) return nullptr;
    Json out = Json::object();
    for (auto& [name, value] : row.items()) {
      if (value.is_primitive()) out[name] = std::move(value);
    }
    return out;
  } catch (const Error&) {
    return nullptr;
  }
}

}  // namespace

MetricsMark metrics_mark(const std::filesystem::path& path) {
  struct stat info{};
  if (path.empty() || stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return {};
  return {.id = info.st_ino, .size = static_cast<uint64_t>(info.st_size)};
}

Json metrics_rows(const std::filesystem::path& path, uint64_t id, uint64_t from, int64_t limit) {
  const MetricsMark mark = metrics_mark(path);
  if (id != mark.id || from > mark.size) from = 0;
  std::string text(std::min(kPiece, mark.size - from), '\0');
  std::ifstream file(path, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(from));
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(std::max<std::streamsize>(0, file.gcount())));

  Json rows = Json::array();
  int64_t skipped = 0;
  size_t begin = 0;
  while (static_cast<int64_t>(rows.size()) < limit) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    if (line.empty()) continue;
    Json row = parse_row(line);
    if (row.is_null()) {
      ++skipped;
    } else {
      rows.push_back(std::move(row));
    }
  }
  if (begin == 0 && text.size() == kPiece) {  // one line as long as that: not ours, go past it
    begin = text.size();
    ++skipped;
  }
  // The id may use all 64 bits, which a JSON number in a browser does not hold.
  return {{"id", std::to_string(mark.id)},
          {"from", from},
          {"next", from + begin},
          {"size", mark.size},
          {"skipped", skipped},
          {"rows", std::move(rows)}};
}

}  // namespace triptych::insight
