#include "insight/viewer.h"

#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "insight/assets.h"
#include "insight/http_rules.h"
#include "insight/viewer_state.h"

namespace triptych::insight {
namespace {

std::shared_ptr<const Queries> load(Run run, const ViewerOptions& options, LoadProgress* progress) {
  auto loaded = std::make_shared<Run>(std::move(run));
  loaded->set_peak_flops_per_s(options.peak_flops_per_s);
  loaded->load(options.jobs, progress, options.write_index);
  return std::make_shared<const Queries>(std::move(loaded));
}

HttpReply page_file(std::string_view name, std::string_view type) {
  const std::string_view bytes = page_asset(name);
  return {.type = std::string(type), .body = std::string(bytes), .etag = hex64(xxh3_64(bytes))};
}

}  // namespace

const Queries& Viewer::State::ready() const {
  require(done, "the traces are still being read");
  require(queries != nullptr, failure);
  return *queries;
}

Json Viewer::State::progress_json() const {
  return {{"loaded", done.load()},
          {"failure", done ? failure : ""},
          {"bytes_done", progress.bytes_done.load()},
          {"bytes_total", progress.bytes_total.load()},
          {"files_done", progress.files_done.load()},
          {"files_total", progress.files_total.load()}};
}

Viewer::Viewer(ViewerOptions options) : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.options = std::move(options);
  if (state.options.jobs == 0) {
    state.options.jobs = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  }
  Run run = Run::find(state.options.where);
  std::optional<Run> baseline;
  if (state.options.baseline) baseline = Run::find({*state.options.baseline});
  state.root = std::filesystem::canonical(run.root());
  state.name = run.name();
  if (run.metrics_file()) {
    state.metrics =
        resolve_inside(state.root, *run.metrics_file()).value_or(std::filesystem::path());
  }
  loader_ = std::thread([&state, run = std::move(run), baseline = std::move(baseline)]() mutable {
    try {
      const ViewerOptions& o = state.options;
      state.queries = load(std::move(run), o, &state.progress);
      if (baseline) state.baseline = load(std::move(*baseline), o, &state.progress);
    } catch (const std::exception& error) {
      state.failure = error.what();
      state.queries.reset();
    }
    state.done = true;
  });
}

Viewer::~Viewer() {
  state_->closing = true;
  state_->progress.cancel = true;
  loader_.join();
}

void Viewer::wait() {
  while (!state_->done) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  require(state_->queries != nullptr, state_->failure);
}

HttpReply Viewer::answer(const HttpRequest& request) {
  constexpr std::string_view kApi = "/api/v1/";
  const std::string& path = request.path;
  if (path == "/" || path == "/index.html")
    return page_file("index.html", "text/html; charset=utf-8");
  if (path == "/app.js") return page_file("app.js", "text/javascript; charset=utf-8");
  if (path == "/style.css") return page_file("style.css", "text/css; charset=utf-8");
  if (path == "/icon.svg" || path == "/favicon.ico") return page_file("icon.svg", "image/svg+xml");
  if (path.starts_with(kApi))
    return answer_api(*state_, std::string_view(path).substr(kApi.size()), request);
  return http_error(404, "path", "there is no such page");
}

}  // namespace triptych::insight
