#pragma once

#include <cstdint>

#include "base/descriptor.h"
#include "parallel/launcher.h"

namespace triptych {

/// The socket of the rendezvous store; rank 0 inherits it, so nobody can take the port in between.
struct Listener {
  Descriptor socket;  // none on other hosts than the first
  int64_t port = 0;
};

/// One host: a free port of the loopback interface. Several: the port given, on every interface,
/// for IPv6 and IPv4 alike where the kernel has both.
/// @throws UsageError where the port cannot be had
Listener listen_for_store(const WorkerOptions& options);

}  // namespace triptych
