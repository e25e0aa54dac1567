#include "parallel/rendezvous.h"

#include <c10/util/Flags.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <future>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "base/files.h"
#include "base/format.h"
#include "base/log.h"
#include "parallel/group_host.h"

C10_DECLARE_int(caffe2_log_level);  // the least level that c10 prints

namespace triptych {

namespace {

/// While it lives, the store's client writes no errors of its own: ours say the same, and the way
/// out. TORCH_CPP_LOG_LEVEL shows them all.
class QuietClient {
 public:
  QuietClient() {
    constexpr int kFatalOnly = 3;
    if (!process_variable("TORCH_CPP_LOG_LEVEL")) FLAGS_caffe2_log_level = kFatalOnly;
  }
  ~QuietClient() { FLAGS_caffe2_log_level = before_; }
  QuietClient(const QuietClient&) = delete;
  QuietClient& operator=(const QuietClient&) = delete;

 private:
  const int before_ = FLAGS_caffe2_log_level;
};

using Store = c10::intrusive_ptr<c10d::Store>;

std::string key(const char* stem, int64_t rank) { return fmt::format("{}{}", stem, rank); }

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

/// A store of its own for every attempt: under torchrun the server survives a restart.
std::string store_prefix() {
  return fmt::format("triptych/{}/{}", process_variable("TORCHELASTIC_RUN_ID").value_or("run"),
                     process_variable("TORCHELASTIC_RESTART_COUNT").value_or("0"));
}

/// How long the start waits, and when it says so.
class Patience {
 public:
  Patience(double limit_s, double warn_after_s) : limit_s_(limit_s), warn_after_s_(warn_after_s) {}

  double limit_s() const { return limit_s_; }
  double waited_s() const { return steady_seconds() - start_; }
  double left_s() const { return limit_s_ - waited_s(); }
  /// For calls that end by themselves; never nothing.
  std::chrono::milliseconds left() const { return milliseconds(std::max(left_s(), 0.1)); }
  /// Until the next warning, or the end and a little more.
  std::chrono::milliseconds until_warning() const {
    return milliseconds(std::max(std::min(warn_after_s_, left_s() + 1), 0.1));
  }
  std::string so_far() const {
    return fmt::format("for {:.0f} s, at most {:.0f} s", waited_s(), limit_s_);
  }

 private:
  const double start_ = steady_seconds(), limit_s_, warn_after_s_;
};

/// Rank 0 is a client only where something listens already.
void warn_of_silence(const LaunchEnvironment& env, const Patience& patience) {
  log_message(env.local_rank == 0 ? LogLevel::kWarning : LogLevel::kInfo,  // one voice a host
              fmt::format("rank {} waits for the rendezvous store at {}:{} ({}): {}", env.rank,
                          env.address, env.port, patience.so_far(),
                          env.rank == 0 ? "what listens there does not answer; is the port another "
                                          "program's?"
                                        : "is rank 0 started, and the address right?"));
}

Store connect(const LaunchEnvironment& env, const Patience& patience) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(env.port);
  options.waitWorkers = false;
  options.timeout = patience.left();
  // A program of another kind on that port may accept and never answer, and the client waits for
  // its greeting without a limit: so it does that on a thread that can be left behind.
  auto greeting = std::make_shared<std::promise<Store>>();
  auto greeted = greeting->get_future();
  std::thread([greeting, options, address = env.address] {
    try {
      greeting->set_value(c10::make_intrusive<c10d::TCPStore>(address, options));
    } catch (...) {
      greeting->set_exception(std::current_exception());
    }
  }).detach();
  while (greeted.wait_for(patience.until_warning()) != std::future_status::ready) {
    require<PeerError>(patience.left_s() > -1, "no answer");
    warn_of_silence(env, patience);
  }
  return greeted.get();
}

Store serve(const LaunchEnvironment& env, const Patience& patience) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(env.port);
  options.isServer = true;
  options.waitWorkers = false;
  options.timeout = patience.left();
  if (env.store_fd >= 0) options.masterListenFd = static_cast<int>(env.store_fd);
  try {
    return c10::make_intrusive<c10d::TCPStore>(env.address, options);
  } catch (const std::exception& error) {
    fail<UsageError>("rank 0 cannot serve the rendezvous store at ", env.address, ":", env.port,
                     ": ", message_of(error),
                     "; is the port in use, or the address not this host's?");
  }
}

/// Whether something accepts connections at the rendezvous address; at once, or within 2 s.
bool someone_listens(const LaunchEnvironment& env) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (::getaddrinfo(env.address.c_str(), fmt::format("{}", env.port).c_str(), &hints, &found) !=
      0) {
    return false;
  }
  bool listens = false;
  for (const auto* a = found; a != nullptr && !listens; a = a->ai_next) {
    const int fd = ::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
    if (fd < 0) continue;
    const timeval limit{.tv_sec = 2, .tv_usec = 0};
    ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    listens = ::connect(fd, a->ai_addr, a->ai_addrlen) == 0;
    ::close(fd);
  }
  ::freeaddrinfo(found);
  return listens;
}

/// Under torchrun a server already listens on the port: then rank 0 is a client like the others.
Store join_store(const LaunchEnvironment& env, const Patience& patience) {
  if (env.rank == 0 && (env.store_fd >= 0 || !someone_listens(env))) return serve(env, patience);
  try {
    return connect(env, patience);
  } catch (const std::exception& error) {
    fail<PeerError>("rank ", env.rank, " finds no rendezvous store at ", env.address, ":", env.port,
                    " within ", patience.limit_s(), " s: ", message_of(error),
                    "; is rank 0 there, and is the port another program's?");
  }
}

/// Equal for two processes that reach each other over the loopback interface. Host names alone
/// would not do: containers of one image may share theirs.
std::string host_identity(const std::string& host_name) {
  std::error_code none;
  const auto network = std::filesystem::read_symlink("/proc/self/ns/net", none).string();
  std::string boot = "/proc/sys/kernel/random/boot_id";
  boot = std::filesystem::exists(boot, none) ? read_file(boot) : std::string();
  return fmt::format("{} {} {}", host_name, network, boot.substr(0, boot.find('\n')));
}

std::string missing_ranks(c10d::Store& store, int64_t world_size) {
  std::string missing;
  for (int64_t r = 0; r < world_size; ++r) {
    if (!store.check({key("host/", r)})) missing += fmt::format(" {}", r);
  }
  return missing;
}

/// One start of all ranks in a store: who came, from where.
class Meeting {
 public:
  Meeting(const LaunchEnvironment& env, std::string host_name)
      : env_(env), host_(host_identity(host_name)), host_name_(std::move(host_name)) {}

  /// @return false when this store is one that earlier processes still hold.
  bool join(const Store& store, const Patience& patience) {
    store->set(key("address/", env_.rank), address_towards(env_.address));
    const auto name = key("host/", env_.rank);
    const auto mine = fmt::format("{}\n{} {}", host_, ::getpid(), steady_seconds());
    const auto there = store->compareSet(name, "", mine);
    if (there != mine) {
      taken_by_ = there.substr(0, there.find(' '));
      return false;
    }
    wait_for_all(store, patience);
    for (int64_t r = 0; r < env_.world_size; ++r) {
      const auto text = store->get_to_str(key("host/", r));
      here_.push_back(text.substr(0, text.find('\n')) == host_);
    }
    return true;
  }

  /// The host that has this rank's place in the store that `join` refused.
  const std::string& taken_by() const { return taken_by_; }
  int64_t ranks_here() const { return std::count(here_.begin(), here_.end(), true); }

  std::string interface(const Store& store) const {
    if (const auto wanted = process_variable("GLOO_SOCKET_IFNAME")) return *wanted;
    if (ranks_here() == env_.world_size) return "lo";
    auto address = address_towards(env_.address);
    // On rank 0's host its name may stand for the loopback interface: go by another host's address.
    for (int64_t r = 0; r < env_.world_size && address.empty(); ++r) {
      const auto theirs = store->get_to_str(key("address/", r));
      if (!here_[static_cast<size_t>(r)] && !theirs.empty()) address = address_towards(theirs);
    }
    auto name = interface_of(address);
    if (name.empty()) {
      log_warning(
          "{}: no network interface found that leads to {}; taking the one of this host's name. "
          "GLOO_SOCKET_IFNAME names another",
          host_name_, env_.address);
    } else if (env_.local_rank == 0) {
      log_info("{}: collectives go over {} ({})", host_name_, name, address);
    }
    return name;
  }

 private:
  void wait_for_all(const Store& store, const Patience& patience) const {
    std::vector<std::string> keys;
    for (int64_t r = 0; r < env_.world_size; ++r) keys.push_back(key("host/", r));
    for (;;) {
      try {
        return store->wait(keys, std::min(patience.left(), patience.until_warning()));
      } catch (const std::exception&) {
        if (patience.left_s() <= 0) throw;
        const auto missing = missing_ranks(*store, env_.world_size);  // throws: no store any more
        if (missing.empty()) continue;  // the last one came in this moment
        log_message(env_.local_rank == 0 ? LogLevel::kWarning : LogLevel::kInfo,
                    fmt::format("rank {} waits at {}:{} ({}); not there yet:{}", env_.rank,
                                env_.address, env_.port, patience.so_far(), missing));
      }
    }
  }

  const LaunchEnvironment& env_;
  const std::string host_, host_name_;
  std::string taken_by_;
  std::vector<bool> here_;
};

}  // namespace

Rendezvous join_ranks(const LaunchEnvironment& env, const std::string& host_name, double timeout_s,
                      double warn_after_s) {
  constexpr double kEarlierStartEnds_s = 60;  // more than ranks take to end after a failure
  const Patience patience(timeout_s, warn_after_s);
  const QuietClient quiet;
  for (;;) {
    Meeting meeting(env, host_name);
    const Store store =
        c10::make_intrusive<c10d::PrefixStore>(store_prefix(), join_store(env, patience));
    try {
      if (meeting.join(store, patience)) {
        return {.store = store,
                .local_world_size = meeting.ranks_here(),
                .interface = meeting.interface(store)};
      }
    } catch (const std::exception&) {
      std::string missing;
      try {
        missing = missing_ranks(*store, env.world_size);
      } catch (const std::exception&) {  // the store went away: that of an earlier start
      }
      require<PeerError>(
          missing.empty() && patience.left_s() > 0, "rank ", env.rank, ": not all of ",
          env.world_size, " ranks came to ", env.address, ":", env.port, " within ", timeout_s,
          " s; missing:", missing.empty() ? std::string(" rank 0, whose store is gone") : missing);
    }
    const bool patient = meeting.taken_by().empty() || patience.waited_s() < kEarlierStartEnds_s;
    require<PeerError>(patient && patience.left_s() > 0, "rank ", env.rank, " (", host_name,
                       "): its place at ", env.address, ":", env.port, " is taken by a process on ",
                       meeting.taken_by(), "; was it started twice?");
    std::this_thread::sleep_for(milliseconds(0.2));
  }
}

Store connect_again(const LaunchEnvironment& env, double timeout_s) {
  return c10::make_intrusive<c10d::PrefixStore>(store_prefix(),
                                                connect(env, Patience(timeout_s, timeout_s)));
}

}  // namespace triptych
