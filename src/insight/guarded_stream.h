#pragma once

#include <httplib.h>

#include <array>
#include <atomic>
#include <chrono>

namespace triptych::insight {

/// A connection as the HTTP library reads and writes it, with limits that the library lacks: size
/// of a request's header, time for a whole request to arrive, time for an answer to be taken. Used
/// by one thread.
class GuardedStream : public httplib::Stream {
 public:
  static constexpr size_t kRequestLimit = 16384;

  GuardedStream(socket_t socket, int deadline_s, const std::atomic<bool>& stopping);

  /// Waits for the first byte of the next request; false when the client is gone or idle for too
  /// long. Starts the time and the size anew.
  bool wait_for_request();
  void close();

  bool is_readable() const override;
  bool is_writable() const override;
  ssize_t read(char* data, size_t size) override;
  ssize_t write(const char* data, size_t size) override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  socket_t socket() const override { return socket_; }

 private:
  using Clock = std::chrono::steady_clock;

  /// Whether `events` arrive before `end`; looks at the stop flag meanwhile.
  bool wait(short events, Clock::time_point end) const;

  socket_t socket_;
  std::chrono::seconds deadline_;
  const std::atomic<bool>& stopping_;
  Clock::time_point request_end_;
  size_t taken_ = 0;  ///< bytes of this request
  std::array<char, 4096> buffer_;
  size_t begin_ = 0, end_ = 0;
};

}  // namespace triptych::insight
