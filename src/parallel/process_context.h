#pragma once

#include <c10/core/Device.h>
#include <c10/core/DeviceType.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "parallel/collective_log.h"
#include "parallel/group.h"
#include "parallel/launch_environment.h"
#include "parallel/mesh.h"

namespace triptych {

/// Thrown on a rank that ends because another one failed, which has said why itself.
class StoppedByPeer : public PeerError {
 public:
  using PeerError::PeerError;
};

struct ProcessOptions {
  c10::DeviceType device = c10::DeviceType::CPU;
  int64_t threads = 0;  ///< compute threads; 0: cores / processes on this host
  double timeout_s = 600;
  double warn_after_s = 60;
  bool check_collectives = false;
  double rendezvous_timeout_s = 300;
  double poll_s = 1;     ///< how often the watchdog looks; tests take less
  bool planned = false;  ///< one rank without the others: collectives are counted, nothing is sent
};

/// This process among all: its rank, the mesh, its groups, and what happens when a rank fails.
///
/// One is made in `main` and passed on. With one process nothing is started: no store, no thread,
/// no connection. With more, a TCPStore joins the ranks (rank 0 serves it, unless a server already
/// listens there, as under torchrun), and a watchdog thread
///  - publishes once a second what this rank is doing,
///  - ends the process with status 1 as soon as another rank has failed,
///  - warns after `warn_after_s` in one collective, naming who waits where and who is missing.
/// A collective that fails or takes longer than `timeout_s` throws PeerError on the thread that
/// waits for it.
///
///   ProcessContext process(read_launch_environment(), options);
///   try {
///     ... train ...
///     process.close();
///   } catch (const std::exception& e) {
///     if (process.report_failure(e)) log_error("{}", e.what());
///     return status_of(e);
///   }
class ProcessContext {
 public:
  /// One process.
  ProcessContext();
  /// Sets the number of threads (and on CUDA the device), and waits until all ranks are there.
  /// @throws PeerError when ranks are missing after the rendezvous time-out; UsageError when the
  ///   port belongs to something else or the local rank has no device.
  ProcessContext(const LaunchEnvironment& environment, const ProcessOptions& options);
  ~ProcessContext();
  ProcessContext(const ProcessContext&) = delete;
  ProcessContext& operator=(const ProcessContext&) = delete;

  int64_t rank() const;
  int64_t world_size() const;
  int64_t local_rank() const;
  int64_t local_world_size() const;
  const std::string& host_name() const;
  int64_t threads() const;

  /// Lays the ranks out. Until then the mesh is data parallel only. @throws UsageError, see Mesh.
  void set_mesh(const MeshShape& shape);
  const Mesh& mesh() const;
  const MeshCoordinates& coordinates() const;

  /// The group over `dims` that this rank is in; made when first asked for, shared where the
  /// members are the same.
  Group& group(MeshDims dims);
  Group& world() { return group(kWorldGroup); }
  /// The same members with connections of their own, for one purpose: messages of one direction of
  /// a pipeline. Members outside any mesh dims (first and last stage) are given by their ranks.
  Group& group(MeshDims dims, const std::string& purpose);
  Group& group(std::vector<int64_t> ranks, const std::string& purpose);
  /// Over the CPU, whatever the device.
  Group& cpu_group(MeshDims dims, const std::string& purpose);
  /// All ranks over the CPU, whatever the device: flags, counters, texts.
  Group& control();
  /// The same with connections of its own, for a second thread (saving beside the steps). To be
  /// asked for by all ranks at once, since it connects.
  Group& background();

  /// Compares what must be equal on every rank. To be called once by all, before any model work.
  /// @param configuration  what must agree, rank-local settings left out
  /// @param version        of the program
  /// @throws UsageError with the same text on every rank: which ranks differ, in which keys.
  void compare_configuration(const Json& configuration, const std::string& version);

  /// What this rank has exchanged so far, and the start of a new count.
  TrafficTable traffic() const;
  void clear_traffic();

  /// The step that messages name.
  void set_step(int64_t step);

  /// True on every rank when it is true on one: stop flags, skipped updates.
  bool any(bool mine);

  /// Tells the other ranks that this one failed and why; they end within seconds.
  /// @return whether this rank should print the error: false when another rank failed first. Under
  ///   our own launcher such a rank does not come back but ends with kStoppedByPeerStatus, so that
  ///   the rank at fault is the one reported.
  bool report_failure(const std::exception& error) noexcept;

  /// The normal end, on every rank: waits until all have arrived, so that nobody loses the store.
  void close();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// @throws UsageError when this libtorch has no such kind of device, or this machine not so many.
void require_device(c10::Device device);

}  // namespace triptych
