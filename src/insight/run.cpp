#include "insight/run.h"

#include <algorithm>
#include <atomic>
#include <set>
#include <thread>

#include "base/error.h"
#include "base/hash.h"
#include "insight/alignment.h"
#include "insight/run_files.h"
#include "insight/trace_image.h"

namespace triptych::insight {

Run Run::find(const std::vector<std::filesystem::path>& where) {
  Run run;
  require(!where.empty(), "insight: which folder or trace file?");
  const auto found = find_run_files(where);
  run.root_ = found.root;
  run.name_ = found.root.filename().empty() ? found.root.parent_path().filename().string()
                                            : found.root.filename().string();
  run.snapshots_ = found.snapshots;
  run.metrics_ = found.metrics;
  run.warnings_ = found.warnings;
  for (const auto& candidate : found.traces) {
    TraceFile file;
    file.path = candidate.path;
    file.bytes = candidate.bytes;
    file.rank = candidate.rank;
    file.span = candidate.span;
    run.files_.push_back(std::move(file));
  }
  require(
      !run.files_.empty() || run.metrics_ || !run.snapshots_.empty(), run.root_.string(),
      ": no traces (*.pt.trace.json, *.pt.trace.json.gz), no metrics.jsonl and no memory snapshots "
      "in it; set [profile] in the run file to record some");
  require(run.files_.size() < 0xffff, run.root_.string(), ": ", run.files_.size(),
          " trace files; at most 65534 can be opened at once");
  Xxh3 hash;
  for (const auto& file : run.files_) {
    const auto id = identify(file.path);
    hash.update(std::as_bytes(std::span(file.path.native())));
    hash.update(std::as_bytes(std::span(&id, 1)));
  }
  run.fingerprint_ = hash.digest();
  return run;
}

void Run::load(int jobs, LoadProgress* progress, bool write_index) {
  if (progress) {
    for (const auto& file : files_) progress->bytes_total += file.bytes;
    progress->files_total += static_cast<uint32_t>(files_.size());
  }
  const int files = static_cast<int>(files_.size());
  const int threads = std::max(1, std::min(jobs, files));
  std::atomic<size_t> next = 0;
  std::atomic<bool> cancelled = false;
  const auto work = [&] {
    for (size_t i; (i = next++) < files_.size() && !cancelled;) {
      auto& file = files_[i];
      if (file.loaded) continue;
      try {
        ReadOptions options;
        options.jobs = std::max(1, jobs / threads);
        options.write_index = write_index;
        options.progress = progress;
        file.trace = read_trace(file.path, options);
      } catch (const Cancelled&) {
        cancelled = true;
      } catch (const std::exception& error) {
        file.error = error.what();
      }
      file.loaded = true;
      if (progress) ++progress->files_done;
    }
  };
  {
    std::vector<std::jthread> pool;
    for (int i = 1; i < threads; ++i) pool.emplace_back(work);
    work();
  }
  if (cancelled) throw Cancelled();
  place_in_time();
}

Run Run::of(std::vector<Trace> traces) {
  Run run;
  run.name_ = "run";
  for (auto& trace : traces) {
    TraceFile file;
    file.rank = static_cast<int64_t>(run.files_.size());
    file.trace = std::move(trace);
    file.loaded = true;
    run.files_.push_back(std::move(file));
  }
  run.place_in_time();
  return run;
}

/// Aligns the clocks and finds time 0.
void Run::place_in_time() {
  align_clocks(*this);
  int64_t origin = INT64_MAX;
  for (const auto& file : files_)
    if (file.error.empty() && file.trace.num_events() + file.trace.memory().size() > 0)
      origin = std::min(origin, file.trace.base_ns() + file.trace.begin_ns() + file.offset_ns);
  origin_ns_ = origin == INT64_MAX ? 0 : origin;
}

std::vector<int64_t> Run::ranks() const {
  std::set<int64_t> ranks;
  for (const auto& file : files_)
    if (file.error.empty()) ranks.insert(file.rank);
  return {ranks.begin(), ranks.end()};
}

std::vector<int64_t> Run::spans() const {
  std::set<int64_t> spans;
  for (const auto& file : files_)
    if (file.error.empty()) spans.insert(file.span);
  return {spans.begin(), spans.end()};
}

int64_t Run::world_size() const {
  int64_t size = 0;
  for (const auto& file : files_) {
    size = std::max(size, file.rank + 1);
    if (!file.loaded || !file.error.empty()) continue;
    const auto& m = file.trace.metadata();
    if (!m.contains("distributedInfo") || !m["distributedInfo"].is_object()) continue;
    const auto& d = m["distributedInfo"];
    if (d.contains("world_size") && d["world_size"].is_number_integer())
      size = std::max(size, std::min<int64_t>(d["world_size"].get<int64_t>(), 1 << 24));
  }
  return size;
}

int Run::file_of(int64_t rank, int64_t span) const {
  int best = -1;
  for (int i = 0; i < static_cast<int>(files_.size()); ++i) {
    const auto& file = files_[static_cast<size_t>(i)];
    if (!file.error.empty() || file.rank != rank || (span >= 0 && file.span != span)) continue;
    if (best < 0 || file.span > files_[static_cast<size_t>(best)].span) best = i;
  }
  return best;
}

std::vector<int> Run::files_of_span(int64_t span) const {
  if (span < 0) {
    const auto all = spans();
    if (all.empty()) return {};
    span = all.back();
  }
  std::vector<int> files;
  for (int i = 0; i < static_cast<int>(files_.size()); ++i) {
    const auto& file = files_[static_cast<size_t>(i)];
    if (file.error.empty() && file.loaded && file.span == span) files.push_back(i);
  }
  std::ranges::sort(files, {}, [&](int i) { return files_[static_cast<size_t>(i)].rank; });
  return files;
}

int64_t Run::aligned(int file, int64_t ts_ns) const {
  const auto& f = files_[static_cast<size_t>(file)];
  return ts_ns + f.trace.base_ns() + f.offset_ns - origin_ns_;
}

int64_t Run::unaligned(int file, int64_t run_ns) const {
  const auto& f = files_[static_cast<size_t>(file)];
  return run_ns - f.trace.base_ns() - f.offset_ns + origin_ns_;
}

void Run::set_manual_offset(int file, int64_t offset_ns) {
  files_[static_cast<size_t>(file)].offset_ns += offset_ns;
}

Json Run::model_info() const {
  for (const auto& file : files_)
    if (file.loaded && file.error.empty() && file.trace.metadata().contains("mm"))
      return file.trace.metadata()["mm"];
  return nullptr;
}

}  // namespace triptych::insight
