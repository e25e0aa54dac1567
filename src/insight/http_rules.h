#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace triptych::insight {

/// True for 127.0.0.0/8, ::1 and "localhost": what other machines cannot reach.
bool is_loopback(std::string_view host);

/// Whether a request with this Host header (with or without port) may be answered. An address
/// literal, localhost, this machine's name and `bound_host` are; any other name may have been
/// pointed at this machine by somebody else (DNS rebinding).
bool host_allowed(std::string_view host_header, std::string_view bound_host);

/// Whether an Origin header, where there is one, names the very page that we serve.
bool origin_allowed(std::string_view origin, std::string_view host_header);

/// Compares without telling by its duration how many characters agree.
bool equal_in_constant_time(std::string_view a, std::string_view b);

/// The value of one cookie, or "".
std::string_view cookie_value(std::string_view cookie_header, std::string_view name);

/// 128 bits of the system's random numbers as 32 hexadecimal digits.
std::string random_token();

/// `path` with links resolved, when it exists and lies in `root` (or is it); nothing otherwise,
/// also when a link leads out of it. `root` must be canonical.
std::optional<std::filesystem::path> resolve_inside(const std::filesystem::path& root,
                                                    const std::filesystem::path& path);

/// Headers of every answer: only own scripts and styles, no framing, no sniffing, no caching by
/// others.
const std::vector<std::pair<std::string, std::string>>& security_headers();

}  // namespace triptych::insight
