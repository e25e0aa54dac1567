// Reading traces and answering the timeline: bench_insight TRACE [JOBS]
//   prints GB/s of the text, memory, reopening, tiles; benchmarks/reference/insight_hta.py measures
//   HTA and pandas on the same file.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "base/clock.h"
#include "base/memory.h"
#include "insight/queries.h"
#include "insight/statistics.h"
#include "insight/timeline.h"
#include "insight/trace_image.h"

int main(int argc, char** argv) {
  using namespace triptych;
  using namespace triptych::insight;
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_insight TRACE [JOBS]\n");
    return 2;
  }
  const std::filesystem::path path = argv[1];
  const int jobs = argc > 2 ? std::atoi(argv[2]) : 1;
  const auto bytes = static_cast<double>(std::filesystem::file_size(path));
  double begin = steady_seconds();
  const auto trace = read_trace(path, {.jobs = jobs, .use_index = false, .write_index = false});
  double seconds = steady_seconds() - begin;
  std::printf(
      "read      %8.3f s  %6.3f GB/s on %d threads, %zu events, peak memory %.0f MB (0.25 x file + "
      "200 = %.0f)\n",
      seconds, bytes / seconds / 1e9, jobs, trace.num_events(),
      static_cast<double>(peak_resident_bytes()) / 1e6, 0.25 * bytes / 1e6 + 200);
  const auto index = TraceImage::index_beside(path);
  const auto identity = identify(path);
  begin = steady_seconds();
  TraceImage::write(trace, index, identity);
  std::printf("index     %8.3f s  %.0f MB\n", steady_seconds() - begin,
              static_cast<double>(std::filesystem::file_size(index)) / 1e6);
  begin = steady_seconds();
  if (!TraceImage::open(index, path, identity)) return 1;
  std::printf("reopen    %8.3f s  (goal 0.3)\n", steady_seconds() - begin);
  auto run = std::make_shared<Run>(Run::find({path}));
  run->load(jobs, nullptr, false);
  std::vector<double> latency;
  TileRequest request;
  for (uint32_t t = 0; t < trace.tracks().size(); ++t) request.tracks.push_back(track_id(0, t));
  const int64_t length = trace.end_ns() - trace.begin_ns();
  for (uint32_t level = 10; (int64_t{512} << level) < 2 * length; ++level) {
    const int64_t tiles = length / (int64_t{512} << level) + 1;
    for (int64_t i = 0; i < 20; ++i) {
      request.level = level;
      request.tiles = {i * tiles / 20, i * tiles / 20 + 1, i * tiles / 20 + 2, i * tiles / 20 + 3};
      begin = steady_seconds();
      (void)tiles_binary(*run, request);
      latency.push_back(steady_seconds() - begin);
    }
  }
  std::printf("4 tiles   %8.3f ms median, %.3f ms 95 %%, of all tracks (goal 20 ms)\n",
              1e3 * median(latency), 1e3 * quantile(latency, 0.95));
  begin = steady_seconds();
  const Queries queries(run);
  (void)queries.summary_document({}, 15);
  std::printf("summary   %8.3f s  all analyses\n", steady_seconds() - begin);
  std::filesystem::remove(index);
  return 0;
}
