#include "insight/http_rules.h"

#include <arpa/inet.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstdint>

#include "base/error.h"

namespace triptych::insight {
namespace {

bool is_address(const std::string& host) {
  in6_addr buffer{};
  return inet_pton(AF_INET, host.c_str(), &buffer) == 1 ||
         inet_pton(AF_INET6, host.c_str(), &buffer) == 1;
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return std::tolower(c); });
  return out;
}

/// The host of "host", "host:port", "[v6]:port"; "" when it is none of these.
std::string without_port(std::string_view header) {
  size_t end = header.size();
  if (header.starts_with('[')) {
    end = header.find(']');
    if (end == std::string_view::npos) return "";
    ++end;
  } else if (const size_t colon = header.find(':'); colon != std::string_view::npos) {
    end = colon;
  }
  const std::string_view rest = header.substr(end);
  const bool port =
      rest.size() > 1 && rest[0] == ':' &&
      std::ranges::all_of(rest.substr(1), [](unsigned char c) { return std::isdigit(c) != 0; });
  if (!rest.empty() && !port) return "";
  std::string host = lower(header.substr(0, end));
  if (host.starts_with('[')) host = host.substr(1, host.size() - 2);
  return host;
}

std::string machine_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? lower(name.data()) : "";
}

}  // namespace

bool is_loopback(std::string_view host) {
  const std::string name = lower(host);
  return name == "localhost" || name == "::1" || (name.starts_with("127.") && is_address(name));
}

bool host_allowed(std::string_view host_header, std::string_view bound_host) {
  const std::string host = without_port(host_header);
  if (host.empty()) return false;
  if (is_loopback(host) || host == lower(bound_host)) return true;
  // A server that only this machine reaches has no other names.
  return !is_loopback(bound_host) && (is_address(host) || host == machine_name());
}

bool origin_allowed(std::string_view origin, std::string_view host_header) {
  if (origin.empty()) return true;
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (origin.starts_with(scheme))
      return lower(origin.substr(scheme.size())) == lower(host_header);
  }
  return false;
}

bool equal_in_constant_time(std::string_view a, std::string_view b) {
  // The length may be learned: it is no secret.
  unsigned different = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < a.size(); ++i) {
    const char other = b.empty() ? '\0' : b[i % b.size()];
    different |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(other);
  }
  return different == 0;
}

std::string_view cookie_value(std::string_view cookie_header, std::string_view name) {
  while (!cookie_header.empty()) {
    const size_t end = std::min(cookie_header.find(';'), cookie_header.size());
    std::string_view item = cookie_header.substr(0, end);
    while (item.starts_with(' ')) item.remove_prefix(1);
    if (item.starts_with(name) && item.substr(name.size()).starts_with('=')) {
      return item.substr(name.size() + 1);
    }
    cookie_header.remove_prefix(std::min(end + 1, cookie_header.size()));
  }
  return {};
}

std::string random_token() {
  std::array<uint8_t, 16> bytes{};
  require(getrandom(bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()),
          "insight: the system gave no random numbers, errno ", errno);
  std::string token;
  for (const uint8_t byte : bytes) {
    token += "0123456789abcdef"[byte >> 4];
    token += "0123456789abcdef"[byte & 15];
  }
  return token;
}

std::optional<std::filesystem::path> resolve_inside(const std::filesystem::path& root,
                                                    const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::path real = std::filesystem::canonical(path, error);
  if (error) return {};
  const auto [at, unused] = std::ranges::mismatch(root, real);
  if (at != root.end()) return {};
  return real;
}

const std::vector<std::pair<std::string, std::string>>& security_headers() {
  static const std::vector<std::pair<std::string, std::string>> headers = {
      {"Content-Security-Policy",
       "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
       "connect-src 'self'; object-src 'none'; form-action 'none'; frame-ancestors 'none'; "
       "base-uri 'none'"},
      {"X-Content-Type-Options", "nosniff"},
      {"X-Frame-Options", "DENY"},
      {"Referrer-Policy", "no-referrer"},
      {"Cross-Origin-Resource-Policy", "same-origin"},
      {"Cross-Origin-Opener-Policy", "same-origin"},
  };
  return headers;
}

}  // namespace triptych::insight
