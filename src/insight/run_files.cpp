#include "insight/run_files.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "base/error.h"
#include "insight/byte_source.h"
#include "insight/trace_image.h"

namespace triptych::insight {
namespace {

namespace fs = std::filesystem;
using Candidate = RunFiles::TraceCandidate;

constexpr int kDepth = 4;
constexpr size_t kMostFiles = 100000;

std::optional<int64_t> number_at(std::string_view text, size_t at) {
  int64_t value = 0;
  while (at < text.size() && (text[at] == ' ' || text[at] == '"')) ++at;
  const auto [behind, error] = std::from_chars(text.data() + at, text.data() + text.size(), value);
  if (error != std::errc() || behind == text.data() + at) return std::nullopt;
  return value;
}

/// "rank-3", "rank3", "rank_3" anywhere in a name.
std::optional<int64_t> rank_in_name(std::string_view name) {
  for (size_t at = name.find("rank"); at != std::string_view::npos;
       at = name.find("rank", at + 1)) {
    size_t digits = at + 4;
    if (digits < name.size() && (name[digits] == '-' || name[digits] == '_')) ++digits;
    if (const auto rank = number_at(name, digits); rank && *rank >= 0) return rank;
  }
  return std::nullopt;
}

std::optional<int64_t> member(std::string_view text, std::string_view key) {
  const auto at = text.find(key);
  if (at == std::string_view::npos) return std::nullopt;
  const auto colon = text.find(':', at + key.size());
  if (colon == std::string_view::npos || colon > at + key.size() + 2) return std::nullopt;
  return number_at(text, colon + 1);
}

/// The first bytes of the text behind the name, inflated where needed.
std::string head_of(const fs::path& path) {
  constexpr size_t kHead = 256 << 10;
  return read_text_at(path, 0, kHead, nullptr, nullptr);
}

bool looks_like_trace(std::string_view head) {
  const auto first = head.find_first_not_of(" \t\r\n\xEF\xBB\xBF");
  if (first == std::string_view::npos) return false;
  if (head[first] == '{')
    return head.find("\"traceEvents\"") != std::string_view::npos ||
           head.find("\"schemaVersion\"") != std::string_view::npos;
  return head[first] == '[' && head.find("\"ph\"") != std::string_view::npos;
}

/// The longest run of at least ten digits between dots: ns or ms of the collection.
int64_t time_in_name(std::string_view name) {
  int64_t best = 0;
  size_t length = 9;
  for (size_t i = 0; i < name.size();) {
    size_t j = i;
    while (j < name.size() && name[j] >= '0' && name[j] <= '9') ++j;
    if (j - i > length && j - i <= 19) {
      length = j - i;
      best = number_at(name, i).value_or(0);
    }
    i = j + 1;
  }
  while (best > 0 && best < 100000000000000000) best *= 10;
  return best;
}

class Finder {
 public:
  explicit Finder(RunFiles& out) : out_(out) {}

  void folder(const fs::path& folder, int depth) {
    std::error_code error;
    std::vector<fs::path> entries;
    for (fs::directory_iterator it(folder, error), end;
         !error && it != end && entries.size() < kMostFiles; it.increment(error))
      entries.push_back(it->path());
    std::ranges::sort(entries);
    for (const auto& path : entries) {
      if (fs::is_symlink(path, error) && !inside(path)) continue;
      if (fs::is_directory(path, error)) {
        if (depth < kDepth) this->folder(path, depth + 1);
      } else if (fs::is_regular_file(path, error)) {
        file(path, false);
      }
    }
  }

  /// `asked` names it on the command line: then it must be a trace.
  void file(const fs::path& path, bool asked) {
    const auto name = path.filename().string();
    if (name == "metrics.jsonl") {
      if (!out_.metrics) out_.metrics = path;
      return;
    }
    if (name.ends_with(".pickle") || (name.starts_with("snapshot") && name.ends_with(".json"))) {
      out_.snapshots.push_back(path);
      return;
    }
    const bool named = name.ends_with(".json") || name.ends_with(".json.gz");
    if (!named && !asked) return;
    Candidate trace;
    trace.path = path;
    std::string head;
    try {
      trace.bytes = fs::file_size(path);
      head = head_of(path);
    } catch (const std::exception& error) {
      require(!asked, path.string(), ": ", error.what());
      out_.warnings.push_back(path.string() + ": " + error.what());
      return;
    }
    if (!asked && !looks_like_trace(head) && name.find("trace") == std::string::npos) return;
    const auto header = head.substr(0, head.find("\"traceEvents\""));
    auto rank = member(header, "\"rank\"");
    if (!rank) rank = rank_in_name(name);
    if (!rank) rank = rank_of_ascend(path);
    trace.rank = rank.value_or(-1);
    trace.time_ns = time_in_name(name);
    if (trace.time_ns == 0) trace.time_ns = member(header, "\"baseTimeNanoseconds\"").value_or(0);
    if (trace.time_ns == 0) trace.time_ns = time_of_ascend(path);
    if (trace.time_ns == 0) trace.time_ns = identify(path).modified_ns;
    out_.traces.push_back(trace);
  }

 private:
  bool inside(const fs::path& link) const {
    std::error_code error;
    const auto target = fs::canonical(link, error);
    const auto root = fs::canonical(out_.root, error);
    return !error && std::mismatch(root.begin(), root.end(), target.begin(), target.end()).first ==
                         root.end();
  }

  /// torch_npu: <worker>_<pid>_<yyyymmddhhmmss>_ascend_pt/...; its files are written rank after
  /// rank, possibly much later, so that their own times say nothing.
  static int64_t time_of_ascend(const fs::path& path) {
    const auto name = path.parent_path().parent_path().filename().string();
    return name.ends_with("_ascend_pt") ? time_in_name(name) : 0;
  }

  /// torch_npu: <worker>_ascend_pt/{profiler_info_<rank>.json,
  /// ASCEND_PROFILER_OUTPUT/trace_view.json}
  static std::optional<int64_t> rank_of_ascend(const fs::path& path) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(path.parent_path().parent_path(), error)) {
      const auto name = entry.path().filename().string();
      constexpr std::string_view kPrefix = "profiler_info_";
      if (name.starts_with(kPrefix))
        if (const auto rank = number_at(name, kPrefix.size())) return rank;
    }
    return std::nullopt;
  }

  RunFiles& out_;
};

/// Collections one after another: a new span begins where a rank comes again, or after a minute.
void number_spans(RunFiles& files) {
  std::ranges::stable_sort(files.traces, {}, &Candidate::time_ns);
  std::set<int64_t> ranks;
  int64_t span = 0, begun = 0, next_rank = 0;
  for (const auto& t : files.traces) next_rank = std::max(next_rank, t.rank + 1);
  for (auto& trace : files.traces) {
    if (trace.rank < 0) {
      trace.rank = next_rank++;
      files.warnings.push_back(trace.path.string() + ": names no rank; taken as rank " +
                               std::to_string(trace.rank));
    }
    constexpr int64_t kMinute = 60000000000;
    const bool apart = !ranks.empty() && trace.time_ns - begun > kMinute;
    if (ranks.contains(trace.rank) || apart) {
      ++span;
      ranks.clear();
    }
    if (ranks.empty()) begun = trace.time_ns;
    ranks.insert(trace.rank);
    trace.span = span;
  }
  std::ranges::stable_sort(files.traces, [](const Candidate& a, const Candidate& b) {
    return a.span != b.span ? a.span < b.span : a.rank < b.rank;
  });
}

}  // namespace

RunFiles find_run_files(const std::vector<fs::path>& where) {
  RunFiles out;
  std::error_code error;
  out.root = fs::is_directory(where.front(), error) ? where.front() : where.front().parent_path();
  if (out.root.empty()) out.root = ".";
  Finder finder(out);
  for (const auto& path : where) {
    if (fs::is_directory(path, error)) {
      finder.folder(path, 0);
    } else {
      require(fs::exists(path, error), path.string(), ": no such file or folder");
      finder.file(path, true);
    }
  }
  number_spans(out);
  return out;
}

}  // namespace triptych::insight
