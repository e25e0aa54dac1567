#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <string_view>

namespace triptych::insight {

/// A client that says exactly what it is told, also what no decent client would.
class RawClient {
 public:
  explicit RawClient(int port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  ~RawClient() { ::close(socket_); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  bool connected() const { return connected_; }
  bool send(std::string_view text) const {
    return ::send(socket_, text.data(), text.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(text.size());
  }

  /// What arrives until the other side closes, `until` is among it, or `timeout_ms` pass in
  /// silence.
  std::string receive(int timeout_ms = 3000, std::string_view until = "") const {
    std::string text;
    char buffer[4096];
    pollfd poll{socket_, POLLIN, 0};
    while (::poll(&poll, 1, timeout_ms) > 0) {
      const ssize_t count = ::recv(socket_, buffer, sizeof buffer, 0);
      if (count <= 0) break;
      text.append(buffer, static_cast<size_t>(count));
      if (!until.empty() && text.find(until) != std::string::npos) break;
    }
    return text;
  }

 private:
  int socket_;
  bool connected_ = false;
};

struct RawAnswer {
  int status = 0;  ///< 0: closed without an answer
  std::string head, body;
};

inline RawAnswer parse_answer(const std::string& text) {
  RawAnswer answer;
  if (text.size() > 12) answer.status = std::atoi(text.c_str() + 9);
  const size_t end = text.find("\r\n\r\n");
  answer.head = text.substr(0, end);
  if (end != std::string::npos) answer.body = text.substr(end + 4);
  return answer;
}

/// GET with more header lines, each ending in \r\n; Host is ours unless given.
inline RawAnswer get(int port, std::string_view target, std::string_view lines = "") {
  const RawClient client(port);
  std::string request = "GET " + std::string(target) + " HTTP/1.1\r\n";
  if (lines.find("Host:") == std::string_view::npos)
    request += "Host: 127.0.0.1:" + std::to_string(port) + "\r\n";
  request += std::string(lines) + "Connection: close\r\n\r\n";
  client.send(request);
  return parse_answer(client.receive());
}

}  // namespace triptych::insight
