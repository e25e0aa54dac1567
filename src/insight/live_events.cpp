#include <chrono>
#include <thread>

#include "base/json.h"
#include "insight/metrics_tail.h"
#include "insight/viewer_state.h"

namespace triptych::insight {
namespace {

std::string event(std::string_view name, const Json& data) {
  return "event: " + std::string(name) + "\ndata: " + dump_json(data) + "\n\n";
}

}  // namespace

HttpStream live_events(Viewer::State& state) {
  using namespace std::chrono_literals;
  struct Seen {
    bool first = true, loaded = false;
    uint64_t bytes = 0;
    MetricsMark mark;
    int silent = 0;
  };
  return [&state, seen = Seen{}](std::string& piece) mutable {
    if (!seen.first) std::this_thread::sleep_for(200ms);
    if (state.closing) return false;
    const bool loaded = state.done;
    const uint64_t bytes = state.progress.bytes_done;
    if (seen.first || (!loaded && bytes != seen.bytes))
      piece += event("progress", state.progress_json());
    if (loaded && !seen.loaded) piece += event("loaded", state.progress_json());
    if (const MetricsMark mark = metrics_mark(state.metrics); mark != seen.mark) {
      piece += event("metrics", {{"id", std::to_string(mark.id)}, {"size", mark.size}});
      seen.mark = mark;
    }
    // A word now and then, so that a client that has gone is noticed.
    seen.silent = piece.empty() ? seen.silent + 1 : 0;
    if (seen.silent >= 50) {
      piece = ": still here\n\n";
      seen.silent = 0;
    }
    seen.first = false;
    seen.loaded = loaded;
    seen.bytes = bytes;
    return true;
  };
}

}  // namespace triptych::insight
