#include "parallel/process_context.h"

#include <ATen/Parallel.h>
#include <ATen/ops/full.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <map>

#include "base/clock.h"
#include "base/format.h"
#include "base/log.h"
#include "parallel/group_host.h"
#include "parallel/rank_comparison.h"
#include "parallel/rendezvous.h"
#include "parallel/watchdog.h"

namespace triptych {

namespace {

using Store = c10::intrusive_ptr<c10d::Store>;

std::string read_host_name() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name.data();
}

std::string key(const char* stem, int64_t rank) { return fmt::format("{}{}", stem, rank); }

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

/// Makes the accelerator of this local rank the current one; no wrapping round.
void take_device(const LaunchEnvironment& env, c10::DeviceType type) {
  if (type == c10::DeviceType::CPU) return;
  const c10::Device device(type, static_cast<c10::DeviceIndex>(env.local_rank));
  require_device(device);
  c10::impl::VirtualGuardImpl(type).setDevice(device);
}

}  // namespace

void require_device(c10::Device device) {
  if (device.is_cpu()) return;
  const auto name = c10::DeviceTypeName(device.type(), true);
  require<UsageError>(c10::impl::hasDeviceGuardImpl(device.type()), "device = \"", name,
                      "\": this libtorch knows no such device; allowed here: cpu, or a plug-in in "
                      "backend.library");
  const int64_t count = c10::impl::VirtualGuardImpl(device.type()).deviceCount();
  const int64_t wanted = device.has_index() ? device.index() : 0;
  require<UsageError>(wanted < count, "device = \"", name, "\": local rank ", wanted, " has none, ",
                      count, " are visible on ", read_host_name(),
                      "; start at most one process per device");
}

struct ProcessContext::Impl {
  LaunchEnvironment environment;
  ProcessOptions options;
  std::string host_name = read_host_name();
  Mesh mesh;
  MeshCoordinates coordinates;
  std::shared_ptr<GroupHost> host = std::make_shared<GroupHost>();
  // members -> group; destroyed last to first made, before the store
  std::map<std::vector<int64_t>, std::unique_ptr<Group>> groups;
  std::map<std::string, std::unique_ptr<Group>> own_groups;  // by purpose and dims or ranks
  std::unique_ptr<Group> control, background;         // over the CPU, with hosts of their own
  std::vector<std::shared_ptr<GroupHost>> cpu_hosts;  // theirs
  std::unique_ptr<Watchdog> watchdog;
  bool agreed_failure = false;  // every rank throws the same; nobody needs to be told

  int64_t world_size() const { return environment.world_size; }

  Group& group(const std::vector<int64_t>& members, const std::string& name) {
    auto& slot = groups[members];
    if (!slot) {
      slot = members.size() == 1 ? std::make_unique<Group>()
                                 : std::make_unique<Group>(host, name, members);
    }
    return *slot;
  }

  /// All ranks over the CPU, apart from the other groups' connections and their log.
  std::unique_ptr<Group> make_cpu_world(const char* name) {
    return make_cpu_group(name, mesh.ranks(kWorldGroup, environment.rank));
  }

  std::unique_ptr<Group> make_cpu_group(const std::string& name, std::vector<int64_t> members) {
    if (members.size() == 1) return std::make_unique<Group>();
    auto own = std::make_shared<GroupHost>();
    own->rank = host->rank;
    own->world_size = host->world_size;
    own->store = host->store;
    own->device_interface = host->device_interface;
    own->timeout = host->timeout;
    own->fail = host->fail;
    own->planned = host->planned;
    cpu_hosts.push_back(own);
    return std::make_unique<Group>(own, name, std::move(members));
  }

  void start_watchdog() {
    Watchdog::Options watch;
    watch.rank = environment.rank;
    watch.world_size = world_size();
    watch.host_name = host_name;
    watch.address = fmt::format("{}:{}", environment.address, environment.port);
    watch.poll_s = options.poll_s;
    watch.warn_after_s = options.warn_after_s;
    watch.store_limit_s = std::clamp(options.timeout_s, 5.0, 60.0);
    watch.first_on_host = environment.local_rank == 0;
    watch.stopped_status = environment.own_launcher ? kStoppedByPeerStatus : 1;
    // a connection of its own: a blocking wait holds the other one
    watchdog = std::make_unique<Watchdog>(
        watch, connect_again(environment, options.rendezvous_timeout_s), host);
  }

  /// Throws for a collective that failed, with the rank at fault where it can be found out.
  [[noreturn]] void collective_failed(const std::string& collective, const std::string& cause) {
    const auto verdict = watchdog->find_culprit(collective, cause);
    if (!verdict.told_by.empty())
      fail<StoppedByPeer>(verdict.told_by, "; here: step ", host->step.load(), ", waiting in ",
                          collective);
    fail<PeerError>("rank ", environment.rank, " (", host_name, "), step ", host->step.load(), ": ",
                    collective, " failed: ", verdict.text, host->log.recent(8));
  }

  /// Waits until every rank has set its key, at most `timeout_s`.
  bool wait_for_all(const char* stem, double timeout_s) const {
    std::vector<std::string> keys;
    for (int64_t r = 0; r < world_size(); ++r) keys.push_back(key(stem, r));
    try {
      host->store->wait(keys, milliseconds(timeout_s));
      return true;
    } catch (const std::exception&) {
      return false;
    }
  }
};

ProcessContext::ProcessContext() : ProcessContext(LaunchEnvironment{.local_world_size = 1}, {}) {}

ProcessContext::ProcessContext(const LaunchEnvironment& environment, const ProcessOptions& options)
    : impl_(std::make_unique<Impl>()) {
  auto& self = *impl_;
  self.environment = environment;
  self.options = options;
  auto& env = self.environment;
  auto& host = *self.host;
  host.rank = env.rank;
  host.world_size = env.world_size;
  host.local_rank = env.local_rank;
  host.device = options.device;
  host.timeout = milliseconds(options.timeout_s);
  host.check_collectives = options.check_collectives;
  host.planned = options.planned;
  if (options.planned) {
    set_mesh({});
    return;
  }
  set_log_rank(static_cast<int>(env.rank));
  take_device(env, options.device);
  if (env.world_size > 1) {
    quiet_library();
    std::signal(SIGPIPE, SIG_IGN);  // a lost connection is an error to report, not a silent end
    const auto rendezvous =
        join_ranks(env, self.host_name, options.rendezvous_timeout_s, options.warn_after_s);
    host.store = rendezvous.store;
    host.device_interface = rendezvous.interface;
    env.local_world_size = rendezvous.local_world_size;
    host.fail = [impl = impl_.get()](const std::string& collective, const std::string& cause) {
      impl->collective_failed(collective, cause);
    };
    self.start_watchdog();
  }
  env.local_world_size = std::max<int64_t>(1, env.local_world_size);
  self.options.threads = threads_per_process(options.threads, env.local_world_size);
  at::set_num_threads(static_cast<int>(self.options.threads));
  set_mesh({});
}

ProcessContext::~ProcessContext() {
  if (impl_->watchdog) impl_->watchdog->stop();
}

int64_t ProcessContext::rank() const { return impl_->environment.rank; }
int64_t ProcessContext::world_size() const { return impl_->environment.world_size; }
int64_t ProcessContext::local_rank() const { return impl_->environment.local_rank; }
int64_t ProcessContext::local_world_size() const { return impl_->environment.local_world_size; }
const std::string& ProcessContext::host_name() const { return impl_->host_name; }
int64_t ProcessContext::threads() const { return impl_->options.threads; }

void ProcessContext::set_mesh(const MeshShape& shape) {
  impl_->mesh = Mesh(world_size(), shape);
  impl_->coordinates = impl_->mesh.coordinates(rank());
}
const Mesh& ProcessContext::mesh() const { return impl_->mesh; }
const MeshCoordinates& ProcessContext::coordinates() const { return impl_->coordinates; }

Group& ProcessContext::group(MeshDims dims) {
  return impl_->group(impl_->mesh.ranks(dims, rank()), to_string(dims));
}

Group& ProcessContext::group(MeshDims dims, const std::string& purpose) {
  return group(impl_->mesh.ranks(dims, rank()), purpose);
}

Group& ProcessContext::group(std::vector<int64_t> ranks, const std::string& purpose) {
  auto place = purpose;
  for (const auto member : ranks) place += fmt::format(" {}", member);
  auto& slot = impl_->own_groups[place];
  if (!slot) {
    slot = ranks.size() == 1 ? std::make_unique<Group>()
                             : std::make_unique<Group>(impl_->host, purpose, std::move(ranks));
  }
  return *slot;
}

Group& ProcessContext::cpu_group(MeshDims dims, const std::string& purpose) {
  if (impl_->options.device == c10::DeviceType::CPU) return group(dims, purpose);
  auto& slot = impl_->own_groups[fmt::format("cpu {} {}", purpose, to_string(dims))];
  if (!slot) slot = impl_->make_cpu_group(purpose, impl_->mesh.ranks(dims, rank()));
  return *slot;
}

Group& ProcessContext::control() {
  if (impl_->options.device == c10::DeviceType::CPU || world_size() == 1) return world();
  if (!impl_->control) impl_->control = impl_->make_cpu_world("control");
  return *impl_->control;
}

Group& ProcessContext::background() {
  if (!impl_->background) {
    impl_->background = impl_->make_cpu_world("background");
    // Connects now: later the two threads' waits on the store could block each other.
    impl_->background->barrier("connect");
  }
  return *impl_->background;
}

void ProcessContext::compare_configuration(const Json& configuration, const std::string& version) {
  if (world_size() == 1 || impl_->options.planned) return;
  auto& self = *impl_;
  const RankComparison::Self mine{.rank = rank(),
                                  .world_size = world_size(),
                                  .host_name = self.host_name,
                                  .device = c10::DeviceTypeName(self.options.device, true),
                                  .version = version,
                                  .configuration = configuration};
  const auto verdict =
      RankComparison(self.host->store, milliseconds(self.options.timeout_s)).run(mine);
  if (verdict.empty()) return;
  self.agreed_failure = true;
  self.host->store->set(key("read/", rank()), "1");
  if (rank() == 0) self.wait_for_all("read/", 5);  // rank 0 takes the store with it
  throw UsageError(verdict);
}

TrafficTable ProcessContext::traffic() const {
  auto table = impl_->host->log.traffic();
  // Groups over the CPU have logs of their own, and names of their own in the table.
  for (const auto& host : impl_->cpu_hosts) table.merge(host->log.traffic());
  return table;
}

void ProcessContext::clear_traffic() {
  impl_->host->log.clear_traffic();
  for (const auto& host : impl_->cpu_hosts) host->log.clear_traffic();
}

void ProcessContext::set_step(int64_t step) { impl_->host->step = step; }

bool ProcessContext::any(bool mine) {
  if (world_size() == 1) return mine;
  const auto flag = at::full({1}, mine ? 1 : 0, at::kInt);
  control().all_reduce(flag, ReduceOp::kMax, "flag");
  return flag.item<int>() != 0;
}

bool ProcessContext::report_failure(const std::exception& error) noexcept {
  auto& self = *impl_;
  if (!self.watchdog || self.agreed_failure) return true;
  if (dynamic_cast<const StoppedByPeer*>(&error) != nullptr) {
    self.watchdog->say_stopped(error.what());
    self.watchdog->leave();
    if (self.environment.own_launcher) std::_Exit(kStoppedByPeerStatus);
    return false;
  }
  try {
    const bool first = self.watchdog->publish_failure(message_of(error));
    self.watchdog->leave();
    if (!first && self.environment.own_launcher) std::_Exit(kStoppedByPeerStatus);
    return first;
  } catch (const std::exception&) {  // the store is gone: nobody is left to be told
    return true;
  }
}

void ProcessContext::close() {
  auto& self = *impl_;
  if (!self.watchdog) return;
  control().barrier("end");  // over the CPU: NCCL would connect for this alone
  self.watchdog->stop();
  self.control.reset();
  self.background.reset();
  self.own_groups.clear();
  self.groups.clear();
  self.host->store->set(key("done/", rank()), "1");
  if (rank() == 0) self.wait_for_all("done/", 30);
  self.watchdog.reset();
}

}  // namespace triptych
