#pragma once

#include <memory>
#include <string>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

#include "parallel/launch_environment.h"

namespace triptych {

/// Where all ranks meet: the store, and who is on which host.
struct Rendezvous {
  c10::intrusive_ptr<c10d::Store> store;  ///< under our own prefix
  int64_t local_world_size = 1;           ///< ranks on this host
  /// Network interface that leads to the other hosts: "lo" on one host, else the one whose address
  /// the route to rank 0's host starts from; empty where none was found. GLOO_SOCKET_IFNAME wins.
  std::string interface;
};

/// Waits until every rank is there. Rank 0 serves the store, unless a server already listens at the
/// address, as under torchrun. A rank that reaches the store of an earlier start, which is about to
/// end, tries again until the time-out: hosts restart at different times.
/// @param host_name  for messages
/// @param warn_after_s  after so long, and again each time, one rank of a host says what it waits
/// for
/// @throws PeerError naming the ranks that did not come, or the host that has this rank's place;
///   UsageError when rank 0 cannot serve at that address.
Rendezvous join_ranks(const LaunchEnvironment& environment, const std::string& host_name,
                      double timeout_s, double warn_after_s);

/// A second connection to the same store, for another thread.
c10::intrusive_ptr<c10d::Store> connect_again(const LaunchEnvironment& environment,
                                              double timeout_s);

/// The local address from which this host reaches `address`, as text; empty when it does not, or
/// only through the loopback interface, as where a host's own name stands for 127.0.1.1.
std::string address_towards(const std::string& address);
/// The network interface that has this local address; empty when none has.
std::string interface_of(const std::string& local_address);

}  // namespace triptych
