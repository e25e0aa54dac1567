#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace triptych::insight {

/// What a handler sees of a request. Only GET and HEAD arrive here; there is never a body.
struct HttpRequest {
  std::string path;                           ///< decoded, starts with '/'
  std::map<std::string, std::string> params;  ///< decoded; of repeated names the first counts

  /// The parameter, or `otherwise` when it is not there.
  std::string text(std::string_view name, std::string_view otherwise = "") const;
  /// @throws UsageError (answered with 400) unless it is an integer in [least, greatest].
  int64_t integer(std::string_view name, int64_t otherwise, int64_t least = INT64_MIN,
                  int64_t greatest = INT64_MAX) const;
};

/// Pieces of an endless answer: returns the next one ("" = nothing yet, ask again), or false at its
/// end. It must come back within half a second, so that the server can stop.
using HttpStream = std::function<bool(std::string& piece)>;

struct HttpReply {
  int status = 200;
  std::string type = "application/json";
  std::string body;
  bool gzipped = false;  ///< the body already is; unpacked for clients that do not take it
  std::string etag;      ///< without quotes; "": none. Answered with 304 when the client has it
  std::string download;  ///< file name to save as; "": shown
  HttpStream stream;     ///< instead of a body
};

/// `{"error": {"code", "message", "hint"}}`.
HttpReply http_error(int status, std::string_view code, std::string_view message,
                     std::string_view hint = "");

struct HttpOptions {
  std::string host = "127.0.0.1";
  int port = 0;          ///< 0: a free one
  std::string token;     ///< required of every request unless empty
  int connections = 64;  ///< more wait in the system's queue
  int streams = 16;      ///< endless answers at a time
  int deadline_s = 10;   ///< for a request to arrive, and for an answer to be taken
};

/// An HTTP/1.1 server for one page on this machine. It checks Host, Origin, token and sizes, sets
/// the security headers, packs long answers, and gives the rest to one handler, which may be called
/// from many threads at a time. Exceptions of the handler become answers: Error 400, else 500.
class HttpServer {
 public:
  using Handler = std::function<HttpReply(const HttpRequest&)>;

  /// Binds the address; nothing is answered before run().
  /// @throws UsageError for an address other machines reach without a token; Error when it is
  /// taken.
  HttpServer(HttpOptions options, Handler handler);
  ~HttpServer();

  /// "http://127.0.0.1:40123/"; with the token when there is one.
  std::string url() const;
  int port() const;

  /// Answers requests until stop() is called from another thread or a handler.
  void run();
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace triptych::insight
