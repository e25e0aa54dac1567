#include "parallel/store_listener.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <optional>

#include "base/error.h"

namespace triptych {

namespace {

std::string last_error() { return std::strerror(errno); }

/// Nothing, and errno, where that cannot be.
std::optional<Listener> listen_at(sockaddr* address, socklen_t size) {
  Listener listener{Descriptor(::socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0))};
  const int fd = listener.socket.get(), yes = 1, no = 0;
  if (fd < 0) return std::nullopt;
  // a run that has just ended leaves connections of its port behind for a minute
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (address->sa_family == AF_INET6) ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
  if (::bind(fd, address, size) != 0 || ::listen(fd, 1024) != 0 ||
      ::getsockname(fd, address, &size) != 0)
    return std::nullopt;
  static_assert(offsetof(sockaddr_in, sin_port) == offsetof(sockaddr_in6, sin6_port));
  listener.port = ntohs(reinterpret_cast<const sockaddr_in*>(address)->sin_port);
  return listener;
}

}  // namespace

Listener listen_for_store(const WorkerOptions& options) {
  if (options.node > 0) return {Descriptor(), options.port};
  const auto port = htons(static_cast<uint16_t>(options.nodes == 1 ? 0 : options.port));
  sockaddr_in ipv4{.sin_family = AF_INET, .sin_port = port, .sin_addr = {}, .sin_zero = {}};
  const auto listen_ipv4 = [&](in_addr_t address) {
    ipv4.sin_addr.s_addr = htonl(address);
    return listen_at(reinterpret_cast<sockaddr*>(&ipv4), sizeof ipv4);
  };
  if (options.nodes == 1) {
    auto listener = listen_ipv4(INADDR_LOOPBACK);
    require(listener.has_value(), "launcher: no free port on 127.0.0.1: ", last_error());
    return std::move(*listener);
  }
  sockaddr_in6 ipv6{};  // every address
  ipv6.sin6_family = AF_INET6;
  ipv6.sin6_port = port;
  auto listener = listen_at(reinterpret_cast<sockaddr*>(&ipv6), sizeof ipv6);
  // a port that another program holds for IPv6 alone would lead the other hosts to that program
  const bool no_ipv6 = errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL;
  if (!listener && no_ipv6) listener = listen_ipv4(INADDR_ANY);
  require<UsageError>(listener.has_value(), "--master: cannot listen on port ", options.port,
                      " of this host: ", last_error());
  return std::move(*listener);
}

}  // namespace triptych
