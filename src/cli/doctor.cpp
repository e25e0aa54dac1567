#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>

#include "base/format.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/terminal.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/version.h"

namespace triptych {
namespace {

enum class Verdict { kGood, kWarning, kBad };

struct Check {
  std::string name, seen;
  Verdict verdict = Verdict::kGood;
  std::string advice;  ///< what to do, when it is not good
};

Check good(std::string name, std::string seen) {
  return {std::move(name), std::move(seen), {}, {}};
}

Check check_torch(const TorchInfo& torch) {
  if (torch.version.empty()) {
    return {"libtorch", "not linked", Verdict::kBad, "build the triptych target, see the README"};
  }
  if (!torch.version.starts_with("2.13") && !torch.version.starts_with("2.11")) {
    return {"libtorch", torch.version, Verdict::kWarning,
            "tested with 2.13 (CPU) and 2.11 (CUDA 13); scripts/setup.sh installs 2.13"};
  }
  return good("libtorch", torch.version);
}

Check check_capability(const TorchInfo& torch) {
  if (torch.cpu_capability == "DEFAULT" || torch.cpu_capability == "NO AVX") {
    return {"CPU capability", torch.cpu_capability, Verdict::kWarning,
            "no AVX2: training works, slowly; look for another machine"};
  }
  return good("CPU capability", torch.cpu_capability);
}

Check check_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const int count = sched_getaffinity(0, sizeof set, &set) == 0
                        ? CPU_COUNT(&set)
                        : static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  return good("cores", fmt::format("{} for this process", count));
}

Check check_memory() {
  const auto available = static_cast<double>(available_memory_bytes());
  const std::string seen = fmt::format("{} free of {}", bytes_text(available),
                                       bytes_text(static_cast<double>(total_memory_bytes())));
  if (available < 2e9) {
    return {"memory", seen, Verdict::kWarning, "below 2 GB even small models may not fit"};
  }
  return good("memory", seen);
}

Check check_space(const char* name, const char* path, double least, const char* advice) {
  struct statvfs info{};
  if (statvfs(path, &info) != 0) {
    return {name, fmt::format("{}: {}", path, std::strerror(errno)), Verdict::kWarning, advice};
  }
  const double bytes = static_cast<double>(info.f_bavail) * static_cast<double>(info.f_frsize);
  const std::string seen = fmt::format("{} free in {}", bytes_text(bytes), path);
  if (bytes < least) return {name, seen, Verdict::kWarning, advice};
  return good(name, seen);
}

Check check_open_files() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const std::string seen = fmt::format("{}", limit.rlim_cur);
  if (limit.rlim_cur < 1024) {
    return {"open files", seen, Verdict::kWarning, "raise it: ulimit -n 4096"};
  }
  return good("open files", seen);
}

Check check_host_name() {
  char name[256] = "";
  gethostname(name, sizeof name - 1);
  addrinfo* found = nullptr;
  const int error = getaddrinfo(name, nullptr, nullptr, &found);
  if (error != 0) {
    return {"host name", fmt::format("{} does not resolve: {}", name, gai_strerror(error)),
            Verdict::kWarning,
            fmt::format("runs over several hosts need it: add '127.0.1.1 {}' to /etc/hosts, or set "
                        "GLOO_SOCKET_IFNAME",
                        name)};
  }
  freeaddrinfo(found);
  return good("host name", fmt::format("{} resolves", name));
}

/// Listens on a free port of the loopback interface and connects to it.
std::string loopback_problem() {
  const int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  const bool works = bind(server, generic, length) == 0 && listen(server, 1) == 0 &&
                     getsockname(server, generic, &length) == 0 &&
                     connect(client, generic, length) == 0;
  const std::string problem = works ? "" : std::strerror(errno);
  close(server);
  close(client);
  return problem;
}

Check check_loopback() {
  const std::string problem = loopback_problem();
  if (!problem.empty()) {
    return {"loopback port", problem, Verdict::kBad,
            "worker processes meet on 127.0.0.1; allow it in the firewall or sandbox"};
  }
  return good("loopback port", "can be opened");
}

/// Loaded with this program (one of its functions is there), or at least to be found by the loader:
/// a build without the data commands does not load it.
Check check_library(const char* name, const char* function, const char* file, const char* package) {
  if (dlsym(RTLD_DEFAULT, function) != nullptr) return good(name, "present");
  if (void* library = dlopen(file, RTLD_LAZY); library != nullptr) {
    dlclose(library);
    return good(name, fmt::format("installed ({})", file));
  }
  return {name, "not found", Verdict::kBad, fmt::format("install {} and build again", package)};
}

std::vector<Check> run_checks() {
  const TorchInfo torch = torch_info();
  std::vector<Check> checks = {
      check_torch(torch),
      check_capability(torch),
      check_cores(),
      check_memory(),
      check_space("disk", ".", 10e9, "checkpoints need room: free some, or choose another output"),
      check_space("/dev/shm", "/dev/shm", 64e6, "in a container: --shm-size=1g"),
      check_open_files(),
      check_host_name(),
      check_loopback(),
      check_library("FFmpeg", "avformat_open_input", "libavformat.so.59", "libavformat-dev"),
      check_library("JPEG", "jpeg_read_header", "libjpeg.so.62", "libjpeg62-turbo-dev"),
      check_library("PNG", "png_create_read_struct", "libpng16.so.16", "libpng-dev"),
      check_library("WebP", "WebPGetFeaturesInternal", "libwebp.so.7", "libwebp-dev"),
      check_library("ICU", "unorm2_getNFCInstance_72", "libicuuc.so.72", "libicu-dev"),
  };
  if (torch.cuda.empty()) {
    checks.push_back(good("GPU", "none: this is a CPU build"));
  } else if (torch.gpus.empty()) {
    checks.push_back(
        {"GPU", "none found", Verdict::kBad, "see nvidia-smi; CUDA_VISIBLE_DEVICES may hide them"});
  } else {
    checks.push_back(good("GPU", fmt::format("{} with CUDA {}", torch.gpus.size(), torch.cuda)));
  }
  return checks;
}

std::string checks_text(const std::vector<Check>& checks) {
  std::string text;
  for (const Check& check : checks) {
    const bool is_good = check.verdict == Verdict::kGood, is_bad = check.verdict == Verdict::kBad;
    const std::string word = is_good ? "ok  " : is_bad ? "FAIL" : "warn";
    const Style style = is_good ? Style::kGreen : is_bad ? Style::kRed : Style::kYellow;
    text += fmt::format("{}  {:<15} {}\n", styled(Stream::kStdout, style, word), check.name,
                        check.seen);
    if (!check.advice.empty()) text += fmt::format("      {:<15} -> {}\n", "", check.advice);
  }
  return text;
}

std::string checks_json(const std::vector<Check>& checks) {
  Json list = Json::array();
  for (const Check& check : checks) {
    const char* verdict = check.verdict == Verdict::kGood      ? "ok"
                          : check.verdict == Verdict::kWarning ? "warning"
                                                               : "failed";
    list.push_back({{"check", check.name},
                    {"verdict", verdict},
                    {"seen", check.seen},
                    {"advice", check.advice}});
  }
  return dump_json(list, 2) + "\n";
}

int run_doctor(const Arguments& arguments) {
  arguments.expect({});
  const std::vector<Check> checks = run_checks();
  const std::string text = arguments.has("--json") ? checks_json(checks) : checks_text(checks);
  print_output(text);
  for (const Check& check : checks) {
    if (check.verdict == Verdict::kBad) return 1;
  }
  return 0;
}

}  // namespace

Command doctor_command() {
  Command command;
  command.name = "doctor";
  command.summary = "Say what this machine has, what is missing, and how to get it.";
  command.usage = "[--json]";
  command.flags = {{"--json", "", "for programs"}};
  command.example = "triptych doctor";
  command.status = "0 all that is needed is there (warnings are allowed), 1 something is missing.";
  command.run = run_doctor;
  return command;
}

}  // namespace triptych
