#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

#include "parallel/rendezvous.h"

namespace triptych {

namespace {

/// Without the zone of link-local addresses: "fe80::1%eth0" is "fe80::1".
std::string text_of(const sockaddr* address, socklen_t size) {
  std::array<char, NI_MAXHOST> text{};
  if (::getnameinfo(address, size, text.data(), text.size(), nullptr, 0, NI_NUMERICHOST) != 0)
    return {};
  const std::string whole = text.data();
  return whole.substr(0, whole.find('%'));
}

socklen_t size_of(const sockaddr* address) {
  return address->sa_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
}

bool is_loopback(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    const auto* ipv4 = reinterpret_cast<const sockaddr_in*>(address);
    return ntohl(ipv4->sin_addr.s_addr) >> 24 == 127;
  }
  return IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr);
}

}  // namespace

std::string address_towards(const std::string& address) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_DGRAM;  // connecting sends nothing, it only picks the route
  if (::getaddrinfo(address.c_str(), "9", &hints, &found) != 0) return {};
  std::string local;
  for (const auto* a = found; a != nullptr && local.empty(); a = a->ai_next) {
    const int fd = ::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
    if (fd < 0) continue;
    sockaddr_storage own{};
    socklen_t size = sizeof own;
    auto* generic = reinterpret_cast<sockaddr*>(&own);
    if (::connect(fd, a->ai_addr, a->ai_addrlen) == 0 && ::getsockname(fd, generic, &size) == 0 &&
        !is_loopback(generic)) {
      local = text_of(generic, size);
    }
    ::close(fd);
  }
  ::freeaddrinfo(found);
  return local;
}

std::string interface_of(const std::string& local_address) {
  ifaddrs* all = nullptr;
  if (local_address.empty() || ::getifaddrs(&all) != 0) return {};
  std::string name;
  for (const auto* entry = all; entry != nullptr && name.empty(); entry = entry->ifa_next) {
    const auto* address = entry->ifa_addr;
    if (address == nullptr || (address->sa_family != AF_INET && address->sa_family != AF_INET6))
      continue;
    if (text_of(address, size_of(address)) == local_address) name = entry->ifa_name;
  }
  ::freeifaddrs(all);
  return name;
}

}  // namespace triptych
