#pragma once

#include <c10/core/DeviceType.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

#include "parallel/collective_log.h"

namespace triptych {

/// What the groups of one process share. Internal to this folder; brings c10d's headers.
struct GroupHost {
  int64_t rank = 0, world_size = 1;
  c10::intrusive_ptr<c10d::Store> store;  ///< our own prefix
  std::string device_interface;           ///< for Gloo; empty: by host name
  c10::DeviceType device = c10::DeviceType::CPU;
  int64_t local_rank = 0;
  std::chrono::milliseconds timeout{600000};
  bool check_collectives = false;
  bool planned = false;  ///< there are no other ranks: collectives are counted, nothing is sent
  std::atomic<int64_t> step{0};
  CollectiveLog log;

  /// Throws PeerError or StoppedByPeer for a collective that failed; finds out who is at fault.
  std::function<void(const std::string& collective, const std::string& cause)> fail;
};

/// Gloo, or NCCL for a group of CUDA tensors in a CUDA build. Both sit behind c10d's own interface.
/// @param ranks  for messages of the library
c10::intrusive_ptr<c10d::Backend> make_backend(const GroupHost& host, c10::DeviceType device,
                                               const std::string& name, int64_t rank, int64_t size);

/// True when reduce-scatter is made of an all-reduce inside (Gloo): then reduce in place.
bool scatters_by_all_reduce(c10::DeviceType device);

/// Takes the library's own warnings off standard error, unless TORCH_CPP_LOG_LEVEL asks for them.
void quiet_library();

/// What an exception says, without the stack and the advice that the libraries append.
std::string message_of(const std::exception& error);

}  // namespace triptych
