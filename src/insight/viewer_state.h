#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "insight/viewer.h"

namespace triptych::insight {

/// What the routes see.
struct Viewer::State {
  ViewerOptions options;
  std::filesystem::path root, metrics;  ///< metrics: "" when there is no such file inside root
  std::string name;
  LoadProgress progress;
  std::atomic<bool> done = false, closing = false;
  std::string failure;                               ///< set before done
  std::shared_ptr<const Queries> queries, baseline;  ///< set before done

  /// @throws Error that becomes a 503 or 500 while the traces are not there.
  const Queries& ready() const;
  Json progress_json() const;
};

/// Answers below /api/v1/; `path` is what follows that.
HttpReply answer_api(Viewer::State& state, std::string_view path, const HttpRequest& request);

/// Server-sent events: "progress" and "loaded" of the traces, "metrics" when rows came.
HttpStream live_events(Viewer::State& state);

/// The page as one file that needs no server, with the answers that it will ask for inside.
std::string report_html(Viewer::State& state);

}  // namespace triptych::insight
