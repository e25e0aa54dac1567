#include "insight/http_server.h"

#include <httplib.h>

#include <charconv>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "insight/guarded_stream.h"
#include "insight/gzip.h"
#include "insight/http_rules.h"

namespace triptych::insight {
namespace {

constexpr std::string_view kCookie = "triptych_token";
constexpr const char* kTakesGzip = "X-Triptych-Takes-Gzip";  // set by us, never taken from outside
constexpr size_t kPackFrom = 4096;

/// Counts endless answers, so that they cannot take all threads.
class StreamSlot {
 public:
  StreamSlot(std::atomic<int>& used, int limit) : used_(used), taken_(used.fetch_add(1) < limit) {}
  ~StreamSlot() { used_.fetch_sub(1); }
  StreamSlot(const StreamSlot&) = delete;
  StreamSlot& operator=(const StreamSlot&) = delete;
  bool taken() const { return taken_; }

 private:
  std::atomic<int>& used_;
  bool taken_;
};

/// A pool that lets the accepting thread wait when all threads are busy: what is waiting stays in
/// the system's queue, which is bounded, and not in ours.
class BoundedPool : public httplib::TaskQueue {
 public:
  explicit BoundedPool(size_t threads) : pool_(threads), free_(threads) {}

  void enqueue(std::function<void()> task) override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return free_ > 0; });
    --free_;
    pool_.enqueue([this, task = std::move(task)] {
      task();
      const std::lock_guard done(mutex_);
      ++free_;
      changed_.notify_one();
    });
  }
  void shutdown() override { pool_.shutdown(); }

 private:
  httplib::ThreadPool pool_;
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t free_;
};

/// The library's server with our own reading: sizes and times are limited before it parses
/// anything.
class GuardedServer : public httplib::Server {
 public:
  GuardedServer(int deadline_s, const std::atomic<bool>& stopping)
      : deadline_s_(deadline_s), stopping_(stopping) {}

 private:
  bool process_and_close_socket(socket_t socket) override {
    GuardedStream stream(socket, deadline_s_, stopping_);
    try {
      bool closed = false, understood = true;
      // After a request that was not understood, or that has a body (which is refused), what comes
      // next would be taken for the next request.
      while (!closed && understood && stream.wait_for_request()) {
        understood = false;
        const bool written = process_request(stream, false, closed, [&](httplib::Request& request) {
          understood =
              !request.has_header("Content-Length") && !request.has_header("Transfer-Encoding");
          prepare(request);
        });
        if (!written) break;
      }
    } catch (const std::exception& error) {  // the library's own parsing of hostile headers
      log_debug("insight: connection dropped: {}", error.what());
    }
    stream.close();
    return true;
  }

  /// Packing and parts of files are ours: the library would pack at the slowest level, and answer
  /// a thousand overlapping ranges.
  static void prepare(httplib::Request& request) {
    const bool gzip = request.get_header_value("Accept-Encoding").find("gzip") != std::string::npos;
    request.headers.erase("Accept-Encoding");
    request.headers.erase(kTakesGzip);
    if (gzip) request.set_header(kTakesGzip, "1");
    request.ranges.clear();
  }

  int deadline_s_;
  const std::atomic<bool>& stopping_;
};

}  // namespace

std::string HttpRequest::text(std::string_view name, std::string_view otherwise) const {
  const auto found = params.find(std::string(name));
  return found == params.end() ? std::string(otherwise) : found->second;
}

int64_t HttpRequest::integer(std::string_view name, int64_t otherwise, int64_t least,
                             int64_t greatest) const {
  const auto found = params.find(std::string(name));
  if (found == params.end()) return otherwise;
  const std::string& text = found->second;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  require<UsageError>(error == std::errc() && end == text.data() + text.size() && value >= least &&
                          value <= greatest,
                      "parameter '", name, "' must be an integer from ", least, " to ", greatest);
  return value;
}

HttpReply http_error(int status, std::string_view code, std::string_view message,
                     std::string_view hint) {
  HttpReply reply;
  reply.status = status;
  const Json error = {{"code", code}, {"message", message}, {"hint", hint}};
  // A message may hold what a hostile request said, in bytes that are no text.
  reply.body = Json{{"error", error}}.dump(-1, ' ', false, Json::error_handler_t::replace);
  return reply;
}

struct HttpServer::Impl {
  HttpOptions options;
  Handler handler;
  std::atomic<bool> stopping = false;
  std::atomic<int> streams = 0;
  std::mutex mutex;  ///< of the next two
  bool entered = false, left = false;
  GuardedServer server;
  int port = 0;

  Impl(HttpOptions o, Handler h)
      : options(std::move(o)), handler(std::move(h)), server(options.deadline_s, stopping) {}

  /// The answer that the rules give before anything is looked up, if they give one.
  std::optional<HttpReply> refusal(const httplib::Request& request) const {
    const std::string host = request.get_header_value("Host");
    const std::string site = request.get_header_value("Sec-Fetch-Site");
    if (request.method != "GET" && request.method != "HEAD") {
      return http_error(405, "method", "only GET and HEAD are answered");
    }
    if (request.has_header("Content-Length") || request.has_header("Transfer-Encoding")) {
      return http_error(413, "body", "requests have no body here");
    }
    if (request.get_header_value_count("Host") != 1 || !host_allowed(host, options.host)) {
      return http_error(403, "host", "this Host is not answered",
                        "open the address that was printed");
    }
    const bool page =
        request.path == "/" && request.get_header_value("Sec-Fetch-Mode") == "navigate";
    if (!origin_allowed(request.get_header_value("Origin"), host) ||
        (!page && !site.empty() && site != "same-origin" && site != "none")) {
      return http_error(403, "origin", "requests from other sites are not answered");
    }
    if (request.path.find('\0') != std::string::npos || !request.path.starts_with('/')) {
      return http_error(400, "path", "the path is not one");
    }
    return {};
  }

  bool has_token(const httplib::Request& request) const {
    if (options.token.empty()) return true;
    const std::string cookies = request.get_header_value("Cookie");
    std::string_view bearer;
    const std::string authorization = request.get_header_value("Authorization");
    if (authorization.starts_with("Bearer ")) bearer = std::string_view(authorization).substr(7);
    return equal_in_constant_time(cookie_value(cookies, kCookie), options.token) ||
           equal_in_constant_time(bearer, options.token);
  }

  void answer(const httplib::Request& request, httplib::Response& response) {
    for (const auto& [name, value] : security_headers()) response.set_header(name, value);
    if (auto reply = refusal(request)) return send(request, response, std::move(*reply));
    if (!has_token(request)) {
      // The printed address carries the token once; from then on a cookie that no script reads
      // does.
      if (request.path == "/" &&
          equal_in_constant_time(request.get_param_value("token"), options.token)) {
        response.set_header("Set-Cookie", fmt::format("{}={}; HttpOnly; SameSite=Strict; Path=/",
                                                      kCookie, options.token));
        response.set_header("Location", "/");
        return send(request, response, {.status = 303, .type = "text/plain"});
      }
      return send(
          request, response,
          http_error(401, "token", "a token is needed", "open the address that was printed"));
    }
    HttpRequest own;
    own.path = request.path;
    for (const auto& [name, value] : request.params) own.params.emplace(name, value);
    HttpReply reply;
    try {
      reply = handler(own);
    } catch (const Error& error) {  // what the asker can put right, such as a wrong expression
      reply = http_error(400, "request", error.what());
    } catch (const std::exception& error) {
      reply = http_error(500, "internal", error.what());
    }
    send(request, response, std::move(reply));
  }

  void send(const httplib::Request& request, httplib::Response& response, HttpReply reply) {
    response.status = reply.status;
    response.set_header("Cache-Control", reply.etag.empty() ? "no-store" : "no-cache");
    if (!reply.download.empty()) {
      response.set_header("Content-Disposition", "attachment; filename=\"" + reply.download + "\"");
    }
    if (reply.stream) return send_stream(request, response, std::move(reply));
    if (!reply.etag.empty()) {
      const std::string etag = '"' + reply.etag + '"';
      response.set_header("ETag", etag);
      if (request.get_header_value("If-None-Match") == etag) {
        response.status = 304;
        return;
      }
    }
    const bool takes_gzip = request.has_header(kTakesGzip);
    if (reply.gzipped && !takes_gzip) reply.body = gunzip(reply.body, size_t{64} << 20);
    const bool pack = !reply.gzipped && takes_gzip && reply.body.size() > kPackFrom;
    if (pack) reply.body = gzip(reply.body, 1);
    if ((reply.gzipped && takes_gzip) || pack) response.set_header("Content-Encoding", "gzip");
    response.set_header("Vary", "Accept-Encoding");
    response.set_content(std::move(reply.body), reply.type);
  }

  void send_stream(const httplib::Request& request, httplib::Response& response, HttpReply reply) {
    auto slot = std::make_shared<StreamSlot>(streams, options.streams);
    if (!slot->taken() || request.method != "GET") {
      reply.stream = {};
      return send(request, response, http_error(503, "busy", "too many live pages are open"));
    }
    response.set_chunked_content_provider(
        reply.type, [this, slot, next = std::move(reply.stream)](size_t, httplib::DataSink& sink) {
          std::string piece;
          if (stopping || !next(piece)) {
            sink.done();
          } else if (!piece.empty()) {
            sink.write(piece.data(), piece.size());
          }
          return true;
        });
  }
};

HttpServer::HttpServer(HttpOptions options, Handler handler) {
  require<UsageError>(is_loopback(options.host) || !options.token.empty(), "insight: --host ",
                      options.host, " can be reached by other machines; give a --token as well");
  impl_ = std::make_unique<Impl>(std::move(options), std::move(handler));
  auto& server = impl_->server;
  const HttpOptions& o = impl_->options;
  server.new_task_queue = [n = o.connections] { return new BoundedPool(static_cast<size_t>(n)); };
  server.set_payload_max_length(0);
  server.set_tcp_nodelay(true);
  // The library sets SO_REUSEPORT, with which a second server would silently share the port.
  server.set_socket_options([](socket_t socket) {
    const int yes = 1;
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  });
  server.set_pre_routing_handler(
      [this](const httplib::Request& request, httplib::Response& response) {
        impl_->answer(request, response);
        return httplib::Server::HandlerResponse::Handled;
      });
  // What the library refuses by itself, such as a header that it cannot parse.
  server.set_error_handler(
      httplib::Server::Handler([](const httplib::Request&, httplib::Response& response) {
        if (!response.body.empty()) return;
        for (const auto& [name, value] : security_headers()) response.set_header(name, value);
        response.set_content(http_error(response.status, "request", "the request is not one").body,
                             "application/json");
      }));
  impl_->port = o.port == 0 ? server.bind_to_any_port(o.host)
                            : (server.bind_to_port(o.host, o.port) ? o.port : -1);
  require(impl_->port > 0, "insight: cannot listen on ", o.host, ":", o.port,
          "; is the port taken? --port 0 finds a free one");
}

HttpServer::~HttpServer() { stop(); }

std::string HttpServer::url() const {
  const HttpOptions& o = impl_->options;
  const std::string host = o.host.find(':') == std::string::npos ? o.host : "[" + o.host + "]";
  return fmt::format("http://{}:{}/{}", host, impl_->port,
                     o.token.empty() ? "" : "?token=" + o.token);
}

int HttpServer::port() const { return impl_->port; }

void HttpServer::run() {
  {
    const std::lock_guard lock(impl_->mutex);
    if (impl_->stopping) return;
    impl_->entered = true;
  }
  const bool well = impl_->server.listen_after_bind();
  const std::lock_guard lock(impl_->mutex);
  impl_->left = true;
  require(well || impl_->stopping, "insight: the server stopped by itself");
}

void HttpServer::stop() {
  impl_->stopping = true;
  // The library forgets a stop that comes before its loop has begun.
  while (true) {
    {
      const std::lock_guard lock(impl_->mutex);
      if (!impl_->entered || impl_->left || impl_->server.is_running()) break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  impl_->server.stop();
}

}  // namespace triptych::insight
