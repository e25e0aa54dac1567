#include "parallel/launch_environment.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <vector>

#include "base/error.h"

namespace triptych {

namespace {

/// The names one launcher uses. A `trigger` variable says that this launcher started us.
struct Names {
  const char* launcher;
  std::vector<const char*> triggers;
  const char *rank, *world_size, *local_rank, *local_world_size;
};

const Names kLaunchers[] = {
    {"torchrun",
     {"RANK", "WORLD_SIZE", "LOCAL_RANK"},
     "RANK",
     "WORLD_SIZE",
     "LOCAL_RANK",
     "LOCAL_WORLD_SIZE"},
    // salloc and sbatch set SLURM_NTASKS for the script as well; only srun's tasks have a rank
    {"slurm", {"SLURM_PROCID"}, "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", nullptr},
    {"open mpi",
     {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
     "OMPI_COMM_WORLD_RANK",
     "OMPI_COMM_WORLD_SIZE",
     "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"hydra",
     {"PMI_RANK", "PMI_SIZE"},
     "PMI_RANK",
     "PMI_SIZE",
     "MPI_LOCALRANKID",
     "MPI_LOCALNRANKS"},
};

int64_t parse_number(const char* name, const std::string& text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  require<UsageError>(error == std::errc() && end == text.data() + text.size() && value >= 0,
                      "environment: ", name, "='", text, "' is not a whole number from 0 up");
  return value;
}

class Reader {
 public:
  Reader(const Names& names, const GetVariable& get) : names_(names), get_(get) {}

  int64_t number(const char* name) const {
    const auto text = get_(name);
    require<UsageError>(text.has_value(), "environment: ", name, " is missing, but ", set_trigger(),
                        " is set; ", names_.launcher, " sets all of ", names_.rank, ", ",
                        names_.world_size, ", ", names_.local_rank,
                        "; unset the others to run one process");
    return parse_number(name, *text);
  }

 private:
  const char* set_trigger() const {
    for (const auto* trigger : names_.triggers) {
      if (get_(trigger)) return trigger;
    }
    return "nothing";
  }
  const Names& names_;
  const GetVariable& get_;
};

void read_address(const GetVariable& get, LaunchEnvironment& env) {
  const bool slurm = env.launcher == "slurm";
  if (const auto address = get("MASTER_ADDR")) {
    env.address = *address;
  } else if (const auto nodes = slurm ? get("SLURM_JOB_NODELIST") : std::nullopt) {
    env.address = first_slurm_host(*nodes);
  }
  if (const auto port = get("MASTER_PORT")) {
    env.port = parse_number("MASTER_PORT", *port);
  } else if (const auto job = slurm ? get("SLURM_JOB_ID") : std::nullopt) {
    env.port = 20000 + parse_number("SLURM_JOB_ID", *job) % 20000;
  }
  if (env.world_size == 1) return;
  require<UsageError>(!env.address.empty(), "environment: MASTER_ADDR is missing; ", env.launcher,
                      " started ", env.world_size, " processes that need the address of rank 0");
  require<UsageError>(env.port >= 1 && env.port <= 65535,
                      "environment: MASTER_PORT is missing or outside 1 to 65535; ", env.launcher,
                      " started ", env.world_size, " processes that need a free port of rank 0");
}

/// Kubernetes' training operator sets RANK (of the pod), WORLD_SIZE (pods, in newer releases times
/// PET_NPROC_PER_NODE), MASTER_ADDR, MASTER_PORT, and in newer releases PET_NNODES, PET_NODE_RANK
/// and PET_NPROC_PER_NODE (a number, or auto, cpu, gpu).
std::optional<LaunchEnvironment> read_pytorchjob(const GetVariable& get) {
  for (const auto* name : {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}) {
    if (!get(name)) return std::nullopt;
  }
  if (get("LOCAL_RANK") || get("LOCAL_WORLD_SIZE")) return std::nullopt;
  const auto number = [&get](const char* name) { return parse_number(name, *get(name)); };
  const auto is_number = [&get](const char* name) {
    const auto text = get(name);
    return text && text->find_first_not_of("0123456789") == std::string::npos;
  };
  LaunchEnvironment env;
  env.launcher = "pytorchjob";
  env.rank = number(is_number("PET_NODE_RANK") ? "PET_NODE_RANK" : "RANK");
  env.world_size = number("WORLD_SIZE");
  if (is_number("PET_NPROC_PER_NODE")) env.processes_per_pod = number("PET_NPROC_PER_NODE");
  require<UsageError>(env.processes_per_pod >= 1, "environment: PET_NPROC_PER_NODE=0");
  if (is_number("PET_NNODES")) {
    const int64_t pods = number("PET_NNODES");
    require<UsageError>(env.world_size == pods || env.world_size == pods * env.processes_per_pod,
                        "environment: WORLD_SIZE=", env.world_size, " is neither PET_NNODES=", pods,
                        " nor that times PET_NPROC_PER_NODE=", env.processes_per_pod);
    env.world_size = pods;
  } else if (env.world_size % env.processes_per_pod == 0) {
    env.world_size /= env.processes_per_pod;
  }
  env.local_world_size = 1;
  require<UsageError>(env.rank < env.world_size, "environment: rank ", env.rank,
                      " of the pod must be below the number of pods, ", env.world_size);
  read_address(get, env);
  return env;
}

int64_t cgroup_cores(int64_t cores) {
  std::ifstream file("/sys/fs/cgroup/cpu.max");  // "quota period", or "max period"
  double quota = 0, period = 0;
  if (!(file >> quota >> period) || quota <= 0 || period <= 0) return cores;
  return std::clamp<int64_t>(static_cast<int64_t>(std::ceil(quota / period)), 1, cores);
}

}  // namespace

std::optional<std::string> process_variable(std::string_view name) {
  const char* value = std::getenv(std::string(name).c_str());
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

LaunchEnvironment read_launch_environment(const GetVariable& get) {
  if (const auto pod = read_pytorchjob(get)) return *pod;
  LaunchEnvironment env;
  for (const auto& names : kLaunchers) {
    if (std::none_of(names.triggers.begin(), names.triggers.end(),
                     [&](const char* name) { return get(name).has_value(); })) {
      continue;
    }
    const Reader read(names, get);
    env.launcher = names.launcher;
    env.rank = read.number(names.rank);
    env.world_size = read.number(names.world_size);
    env.local_rank = read.number(names.local_rank);
    if (names.local_world_size != nullptr && get(names.local_world_size)) {
      env.local_world_size = read.number(names.local_world_size);
    }
    require<UsageError>(env.rank < env.world_size, "environment: ", names.rank, "=", env.rank,
                        " must be below ", names.world_size, "=", env.world_size);
    read_address(get, env);
    env.own_launcher = get("TRIPTYCH_RESTART").has_value();
    if (const auto fd = get("TRIPTYCH_STORE_FD"); fd && env.rank == 0) {
      env.store_fd = parse_number("TRIPTYCH_STORE_FD", *fd);
    }
    return env;
  }
  env.local_world_size = 1;
  return env;
}

std::string first_slurm_host(std::string_view node_list) {
  std::string host;
  for (size_t i = 0; i < node_list.size() && node_list[i] != ','; ++i) {
    if (node_list[i] != '[') {
      host += node_list[i];
      continue;
    }
    const auto close = node_list.find(']', i);
    require<UsageError>(close != std::string_view::npos, "environment: SLURM_JOB_NODELIST='",
                        node_list, "' has no ']' for its '['");
    const auto inside = node_list.substr(i + 1, close - i - 1);
    host += inside.substr(0, inside.find_first_of("-,"));
    i = close;
  }
  require<UsageError>(!host.empty(), "environment: SLURM_JOB_NODELIST='", node_list,
                      "' names no host");
  return host;
}

int64_t usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const int64_t cores =
      sched_getaffinity(0, sizeof set, &set) == 0 ? std::max(1, CPU_COUNT(&set)) : 1;
  return cgroup_cores(cores);
}

int64_t threads_per_process(int64_t wanted, int64_t local_world_size) {
  if (wanted > 0) return wanted;
  return std::max<int64_t>(1, usable_cores() / std::max<int64_t>(1, local_world_size));
}

}  // namespace triptych
