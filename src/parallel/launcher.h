#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace triptych {

/// How `train --nproc N` starts its workers on this host, one of `nodes` that are started alike.
struct WorkerOptions {
  int64_t processes = 1;     ///< on this host, as many as on every other
  int64_t nodes = 1;         ///< hosts
  int64_t node = 0;          ///< this one; host 0 serves the rendezvous store
  std::string address;       ///< of host 0, as the others reach it; nodes == 1: unused
  int64_t port = 0;          ///< on host 0; nodes == 1: unused, a free one is taken
  int64_t max_restarts = 0;  ///< `launch.max_restarts`: new starts after a failure
  int64_t threads = 0;       ///< compute threads per process; 0: cores / processes
  double grace_s = 10;       ///< after a failure: how long the others may take to end by themselves
};

/// Starts `processes` copies of this executable with the arguments `argv` (argv[0] included) and
/// waits for them. The parent needs no libtorch.
///
/// - Workers carry torchrun's variables: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE,
///   MASTER_ADDR, MASTER_PORT; also TRIPTYCH_RESTART, the number of restarts so far, and
///   OMP_NUM_THREADS unless it was set. Host k has the ranks from k * processes on.
/// - Rank 0 has our standard output and error; lines of the others come with "[rank n] " in front.
/// - SIGINT, SIGTERM, SIGUSR1, SIGUSR2 and SIGHUP (unless ignored, as under nohup) go to every
///   worker; all but SIGUSR2 rule out restarts. A worker that such a signal ends before it could
///   take it over counts as ended with 75.
/// - When a worker fails, the others get `grace_s` to end by themselves (they learn of it through
///   the store) and are then killed. The failure that came first is reported.
/// - When this process is killed, the kernel kills the workers.
/// - Several hosts: a failure anywhere ends the workers everywhere, and every host's launcher
/// starts
///   its own again; they meet at the same address.
///
/// @return the exit status: of the first worker that failed (1 when a signal killed it); 75 when
///   all ended well and at least one with 75; else 0. A failure other than 2 is tried again, up to
///   `max_restarts` times.
/// @throws UsageError when host 0 cannot listen at the port; Error when no process can be started.
int launch_workers(const WorkerOptions& options, std::span<const std::string> argv);

}  // namespace triptych
