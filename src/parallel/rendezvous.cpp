#include "parallel/rendezvous.h"

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

namespace triptych {

namespace {

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

Store connect(const LaunchEnvironment& env, double timeout_s) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(env.port);
  options.waitWorkers = false;
  options.timeout = milliseconds(timeout_s);
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
  const auto limit = milliseconds(timeout_s) + std::chrono::seconds(1);
  require<PeerError>(greeted.wait_for(limit) == std::future_status::ready, "no answer");
  return greeted.get();
}

Store serve(const LaunchEnvironment& env, double timeout_s) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(env.port);
  options.isServer = true;
  options.waitWorkers = false;
  options.timeout = milliseconds(timeout_s);
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
Store join_store(const LaunchEnvironment& env, double timeout_s) {
  if (env.rank == 0 && (env.store_fd >= 0 || !someone_listens(env))) return serve(env, timeout_s);
  try {
    return connect(env, timeout_s);
  } catch (const std::exception& error) {
    fail<PeerError>("rank ", env.rank, " finds no rendezvous store at ", env.address, ":", env.port,
                    " within ", timeout_s, " s: ", message_of(error),
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

/// One start of all ranks in a store: who came, from where.
class Meeting {
 public:
  Meeting(const LaunchEnvironment& env, std::string host_name)
      : env_(env), host_(host_identity(host_name)), host_name_(std::move(host_name)) {}

  /// @return false when this store is one that earlier processes still hold.
  bool join(const Store& store, double timeout_s) {
    store->set(key("address/", env_.rank), address_towards(env_.address));
    const auto name = key("host/", env_.rank);
    const auto mine = fmt::format("{}\n{} {}", host_, ::getpid(), steady_seconds());
    const auto there = store->compareSet(name, "", mine);
    if (there != mine) {
      taken_by_ = there.substr(0, there.find(' '));
      return false;
    }
    std::vector<std::string> keys;
    for (int64_t r = 0; r < env_.world_size; ++r) keys.push_back(key("host/", r));
    store->wait(keys, milliseconds(timeout_s));
    for (int64_t r = 0; r < env_.world_size; ++r) {
      const auto text = store->get_to_str(keys[static_cast<size_t>(r)]);
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
  const LaunchEnvironment& env_;
  const std::string host_, host_name_;
  std::string taken_by_;
  std::vector<bool> here_;
};

std::string missing_ranks(c10d::Store& store, int64_t world_size) {
  std::string missing;
  for (int64_t r = 0; r < world_size; ++r) {
    if (!store.check({key("host/", r)})) missing += fmt::format(" {}", r);
  }
  return missing;
}

}  // namespace

Rendezvous join_ranks(const LaunchEnvironment& env, const std::string& host_name,
                      double timeout_s) {
  constexpr double kEarlierStartEnds_s = 60;  // more than ranks take to end after a failure
  const double start = steady_seconds(), deadline = start + timeout_s;
  for (;;) {
    const double left = std::max(deadline - steady_seconds(), 0.1);
    Meeting meeting(env, host_name);
    const Store store =
        c10::make_intrusive<c10d::PrefixStore>(store_prefix(), join_store(env, left));
    try {
      if (meeting.join(store, left)) {
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
          missing.empty() && steady_seconds() < deadline, "rank ", env.rank, ": not all of ",
          env.world_size, " ranks came to ", env.address, ":", env.port, " within ", timeout_s,
          " s; missing:", missing.empty() ? std::string(" rank 0, whose store is gone") : missing);
    }
    const bool patient =
        meeting.taken_by().empty() || steady_seconds() < start + kEarlierStartEnds_s;
    require<PeerError>(patient && steady_seconds() < deadline, "rank ", env.rank, " (", host_name,
                       "): its place at ", env.address, ":", env.port, " is taken by a process on ",
                       meeting.taken_by(), "; was it started twice?");
    std::this_thread::sleep_for(milliseconds(0.2));
  }
}

Store connect_again(const LaunchEnvironment& env, double timeout_s) {
  return c10::make_intrusive<c10d::PrefixStore>(store_prefix(), connect(env, timeout_s));
}

}  // namespace triptych
