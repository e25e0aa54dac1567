#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace triptych {

/// What the program that started this process says about it (docs/spec/parallelism.md, 1.4).
struct LaunchEnvironment {
  std::string launcher = "none";  ///< none | torchrun | slurm | open mpi | hydra | pytorchjob
  int64_t rank = 0;
  int64_t world_size = 1;
  int64_t local_rank = 0;
  int64_t local_world_size = 0;  ///< processes on this host; 0: not told, found out by host name
  std::string address;           ///< host of the rendezvous store
  int64_t port = 0;
  int64_t store_fd = -1;  ///< rank 0 of our own launcher: the socket that already listens on `port`
  bool own_launcher = false;  ///< started by `train --nproc N`
  /// Of Kubernetes' PyTorchJob, which starts one process a pod: how many the pod is to start. Rank
  /// and world size are then the pod's place and the number of pods.
  int64_t processes_per_pod = 1;
};

/// Exit status of a worker that ends because another one failed; between workers and our own
/// launcher only, which reports the other one.
inline constexpr int kStoppedByPeerStatus = 77;

/// Reads one variable; nothing when it is not set. Tests pass a table.
using GetVariable = std::function<std::optional<std::string>(std::string_view name)>;
std::optional<std::string> process_variable(std::string_view name);

/// The first launcher of PyTorchJob, torchrun, Slurm, Open MPI, Hydra whose variables are there;
/// one process when none is. Started as a single process, the address may be missing. A PyTorchJob
/// is told from torchrun by the local rank that it lacks beside an address.
/// @throws UsageError for a set that is not complete (names what is missing) or not a number.
LaunchEnvironment read_launch_environment(const GetVariable& get = process_variable);

/// First host of a Slurm node list: "node[007-012,20],gpu3" gives "node007".
std::string first_slurm_host(std::string_view node_list);

/// Processor cores this process may run on: affinity mask and cgroup quota, at least 1.
int64_t usable_cores();

/// Compute threads per process: `wanted`, or for 0 the cores shared out over the processes here.
int64_t threads_per_process(int64_t wanted, int64_t local_world_size);

}  // namespace triptych
