#include <atomic>
#include <cctype>
#include <charconv>
#include <csignal>
#include <exception>
#include <system_error>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "base/signals.h"
#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "insight/http_rules.h"
#include "insight/http_server.h"
#include "insight/viewer.h"

namespace triptych {
namespace {

using insight::HttpOptions;
using insight::HttpRequest;
using insight::HttpServer;
using insight::Viewer;
using insight::ViewerOptions;

ViewerOptions viewer_options(const Arguments& arguments) {
  require<UsageError>(!arguments.positional().empty(),
                      "insight: DIR is missing: a run's output folder, a folder with "
                      "traces, or trace files");
  ViewerOptions options;
  for (const std::string& word : arguments.positional()) options.where.emplace_back(word);
  if (arguments.has("--baseline")) options.baseline = arguments.text("--baseline");
  for (const auto& path : options.where) require_file_or_folder(path);
  if (options.baseline) require_file_or_folder(*options.baseline);
  options.jobs = static_cast<int>(arguments.integer("--jobs", 0, 0));
  options.write_index = !arguments.has("--read-only");
  if (arguments.has("--peak")) {
    const std::string text = arguments.text("--peak");
    const auto [end, error] =
        std::from_chars(text.data(), text.data() + text.size(), options.peak_flops_per_s);
    require<UsageError>(error == std::errc() && end == text.data() + text.size() &&
                            options.peak_flops_per_s > 0 && options.peak_flops_per_s < 1e9,
                        "insight: --peak ", text, ": TFLOP/s of one device, a number above 0");
    options.peak_flops_per_s *= 1e12;
  }
  for (const char* flag : {"--full-rank", "--report-events"}) {
    require<UsageError>(!arguments.has(flag) || arguments.has("--report"), "insight: ", flag,
                        " belongs to --report; the viewer shows all events of all ranks");
  }
  if (arguments.has("--full-rank")) options.full_rank = arguments.integer("--full-rank", 0, 0);
  options.report_events = arguments.integer("--report-events", options.report_events, 0);
  return options;
}

HttpOptions http_options(const Arguments& arguments) {
  HttpOptions options;
  options.host = arguments.text("--host", "127.0.0.1");
  options.port = static_cast<int>(arguments.integer("--port", 0, 0));
  require<UsageError>(options.port <= 65535, "insight: --port ", options.port, " is above 65535");
  options.token = arguments.text("--token");
  if (options.token == "random") options.token = insight::random_token();
  require<UsageError>(!arguments.has("--token") || options.token.size() >= 8,
                      "insight: --token must have at least 8 "
                      "characters; --token random makes one");
  for (const char c : options.token) {
    require<UsageError>(std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_',
                        "insight: --token may have letters, digits, '-' and '_'");
  }
  return options;
}

int write_report(const ViewerOptions& options, const std::string& path) {
  Viewer viewer(options);
  viewer.wait();
  const auto reply = viewer.answer(HttpRequest{.path = "/api/v1/export.html", .params = {}});
  if (reply.status != 200) {
    const Json problem = Json::parse(reply.body, nullptr, false);
    fail<UsageError>(problem.is_object() ? problem["error"].value("message", "") : reply.body);
  }
  write_file_atomically(path, reply.body);
  log_info("wrote {} ({:.1f} MB)", path, static_cast<double>(reply.body.size()) / 1e6);
  return 0;
}

int serve(const ViewerOptions& options, const HttpOptions& http) {
  Viewer viewer(options);
  HttpServer server(http, [&viewer](const HttpRequest& request) { return viewer.answer(request); });
  const SignalFlags signals;
  std::signal(SIGPIPE, SIG_IGN);  // the viewer goes on when nobody reads its log
  if (!insight::is_loopback(http.host)) {
    log_warning(
        "insight: {} can be reached by other machines; the token in the address is the only lock, "
        "and "
        "the connection is not encrypted",
        http.host);
  }
  print_output(server.url() + "\n");
  std::exception_ptr problem;
  std::atomic<bool> ended = false;
  std::thread thread([&] {
    try {
      server.run();
    } catch (...) {
      problem = std::current_exception();
    }
    ended = true;
  });
  while (!ended && signals.stop() == StopRequest::kNone)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  server.stop();
  thread.join();
  if (problem) std::rethrow_exception(problem);
  return 0;
}

int run_insight(const Arguments& arguments) {
  const ViewerOptions options = viewer_options(arguments);
  if (arguments.has("--report")) return write_report(options, arguments.text("--report"));
  return serve(options, http_options(arguments));
}

}  // namespace

Command insight_command() {
  Command command;
  command.name = "insight";
  command.summary = "Show where a run spends its time, in the browser.";
  command.usage =
      "DIR... [--port P] [--host H --token T] [--baseline DIR] [--report FILE.html [--full-rank "
      "R] [--report-events N]]";
  command.flags = {
      {"--host", "H", "address to listen on; default 127.0.0.1, which only this machine reaches"},
      {"--port", "P", "port to listen on; default 0, a free one"},
      {"--token", "T", "what the browser must know; needed with --host; random: make one"},
      {"--baseline", "DIR", "another run to compare with"},
      {"--report", "FILE", "write one HTML file that needs no server, and end"},
      {"--full-rank", "R", "with --report: keep every event of this rank, up to 4 million"},
      {"--report-events", "N",
       "with --report: events of other ranks kept one by one; default 400000"},
      {"--peak", "TFLOPS", "what one device can do, for shares of it; default: as the traces say"},
      {"--read-only", "", "write no index beside the traces: opening them again takes as long"},
      {"--jobs", "N", "threads that read traces; default: one per core"},
  };
  command.details =
      "DIR is a run's output folder, a folder with traces, or trace files: ours, those of "
      "PyTorch's profiler, of\n"
      "torch_npu, or any Chrome JSON, plain or .gz. The address is printed on one line; Ctrl-C "
      "ends the viewer.\n"
      "On another machine: ssh -L 8080:127.0.0.1:PORT that-machine, then open "
      "http://127.0.0.1:8080/.\n"
      "Nothing outside the given folders is served.";
  command.example = "triptych insight runs/sft --port 8080";
  command.run = run_insight;
  return command;
}

}  // namespace triptych
