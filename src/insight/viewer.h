#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "insight/http_server.h"
#include "insight/queries.h"
#include "insight/trace_reader.h"

namespace triptych::insight {

struct ViewerOptions {
  std::vector<std::filesystem::path> where;  ///< a run directory, or traces
  std::optional<std::filesystem::path> baseline;
  int jobs = 0;                 ///< threads that read traces; 0: one per core
  bool write_index = true;      ///< beside the traces, else in the cache folder
  double peak_flops_per_s = 0;  ///< of one device, for shares of it; 0: as the traces say
  // A saved report keeps events one by one, of this rank and of others while there is room.
  std::optional<int64_t> full_rank;
  int64_t report_events = 400000;  ///< most of those others; about 5 bytes of the file each
};

/// The viewer's answers, whoever asks: the server, the report, a test. Reads the traces in a thread
/// of its own; questions about them are answered with 503 until that is done.
/// Nothing outside the given folders is opened, and no request can name a path.
class Viewer {
 public:
  /// @throws Error when nothing is there.
  explicit Viewer(ViewerOptions options);
  ~Viewer();
  Viewer(const Viewer&) = delete;
  Viewer& operator=(const Viewer&) = delete;

  /// May be called from any thread.
  HttpReply answer(const HttpRequest& request);

  /// Waits for the traces. @throws what reading them threw.
  void wait();

  struct State;

 private:
  std::unique_ptr<State> state_;
  std::thread loader_;
};

}  // namespace triptych::insight
