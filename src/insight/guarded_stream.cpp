#include "insight/guarded_stream.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace triptych::insight {

GuardedStream::GuardedStream(socket_t socket, int deadline_s, const std::atomic<bool>& stopping)
    : socket_(socket), deadline_(deadline_s), stopping_(stopping) {}

bool GuardedStream::wait(short events, Clock::time_point end) const {
  while (!stopping_) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
    if (left.count() <= 0) return false;
    pollfd poll{socket_, events, 0};
    const int ready = ::poll(&poll, 1, static_cast<int>(std::min<int64_t>(left.count(), 250)));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
  return false;
}

bool GuardedStream::wait_for_request() {
  taken_ = 0;
  if (begin_ == end_ && !wait(POLLIN, Clock::now() + deadline_)) return false;
  request_end_ = Clock::now() + deadline_;
  return true;
}

void GuardedStream::close() {
  ::shutdown(socket_, SHUT_RDWR);
  ::close(socket_);
}

bool GuardedStream::is_readable() const { return begin_ < end_ || wait(POLLIN, request_end_); }

bool GuardedStream::is_writable() const {
  // Asked between the pieces of an endless answer: a client that has gone away shows as readable
  // with nothing to read.
  char byte = 0;
  const ssize_t peeked = recv(socket_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  if (peeked == 0 || (peeked < 0 && errno != EAGAIN && errno != EWOULDBLOCK)) return false;
  return wait(POLLOUT, Clock::now() + deadline_);
}

ssize_t GuardedStream::read(char* data, size_t size) {
  if (begin_ == end_) {
    if (taken_ >= kRequestLimit || !wait(POLLIN, request_end_)) return -1;
    const ssize_t got = recv(socket_, buffer_.data(), buffer_.size(), 0);
    if (got <= 0) return got;
    begin_ = 0;
    end_ = static_cast<size_t>(got);
  }
  const size_t count = std::min({size, end_ - begin_, kRequestLimit - taken_});
  if (count == 0) return -1;
  std::memcpy(data, buffer_.data() + begin_, count);
  begin_ += count;
  taken_ += count;
  return static_cast<ssize_t>(count);
}

ssize_t GuardedStream::write(const char* data, size_t size) {
  const auto end = Clock::now() + deadline_;
  size_t sent = 0;
  while (sent < size) {
    if (!wait(POLLOUT, end)) return -1;
    const ssize_t count = send(socket_, data + sent, size - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count > 0) {
      sent += static_cast<size_t>(count);
    } else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
      return -1;
    }
  }
  return static_cast<ssize_t>(sent);
}

void GuardedStream::get_remote_ip_and_port(std::string& ip, int& port) const {
  // Nobody here decides by addresses: who may ask is decided by what the server is bound to.
  ip.clear();
  port = 0;
}

void GuardedStream::get_local_ip_and_port(std::string& ip, int& port) const {
  ip.clear();
  port = 0;
}

}  // namespace triptych::insight
