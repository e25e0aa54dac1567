#pragma once

#include <exception>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace triptych {

/// A failure that the user can act on. The message reads "place: what was seen; what is allowed;
/// the likely way out", in lower case and without a final full stop. Ends the program with
/// status 1.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The command line or the configuration is wrong and nothing was started. Status 2.
class UsageError : public Error {
 public:
  using Error::Error;
};

/// A sample or a data file is wrong; `data.on_bad_sample` decides what follows from it.
class DataError : public Error {
 public:
  using Error::Error;
};

/// Another rank is gone or does not answer.
class PeerError : public Error {
 public:
  using Error::Error;
};

namespace detail {
template <class... Parts>
std::string join_parts(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return std::move(out).str();
}
}  // namespace detail

/// Throws E with all parts streamed one after another.
template <class E = Error, class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw E(detail::join_parts(parts...));
}

/// Throws E with the streamed parts unless `condition` holds; the parts cost nothing until then.
template <class E = Error, class... Parts>
void require(bool condition, const Parts&... parts) {
  if (!condition) [[unlikely]] {
    fail<E>(parts...);
  }
}

/// Collects every problem of a configuration, so that the user sees all of them at once.
class Problems {
 public:
  template <class... Parts>
  void check(bool condition, const Parts&... parts) {
    if (!condition) messages_.push_back(detail::join_parts(parts...));
  }
  template <class... Parts>
  void add(const Parts&... parts) {
    messages_.push_back(detail::join_parts(parts...));
  }
  bool empty() const { return messages_.empty(); }
  const std::vector<std::string>& messages() const { return messages_; }

  /// Throws one UsageError that lists all messages, one a line, or returns when there is none.
  void throw_if_any() const;

 private:
  std::vector<std::string> messages_;
};

}  // namespace triptych
