#include "insight/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

#include "base/error.h"
#include "http_client.h"
#include "insight/gzip.h"

namespace triptych::insight {
namespace {

using testing::HasSubstr;
using testing::Not;
using namespace std::chrono_literals;

HttpReply echo(const HttpRequest& request) {
  if (request.path == "/fail") throw std::runtime_error("handler <broke>");
  if (request.path == "/long") return {.body = std::string(100000, 'a')};
  if (request.path == "/packed")
    return {.body = gzip("packed text", 9), .gzipped = true, .etag = "abc"};
  if (request.path == "/endless") {
    HttpReply reply{.type = "text/event-stream"};
    reply.stream = [n = 0](std::string& piece) mutable {
      std::this_thread::sleep_for(20ms);
      piece = "data: " + std::to_string(n++) + "\n\n";
      return n < 100000;
    };
    return reply;
  }
  return {.body = request.path + "|" + request.text("a") + "|" +
                  std::to_string(request.integer("n", 7, 0, 100))};
}

class HttpServerTest : public testing::Test {
 protected:
  void start(HttpOptions options) {
    server = std::make_unique<HttpServer>(std::move(options), echo);
    thread = std::thread([this] { server->run(); });
  }
  void SetUp() override { start({.deadline_s = 2}); }
  void TearDown() override {
    server->stop();
    thread.join();
  }
  void restart(HttpOptions options) {
    TearDown();
    start(std::move(options));
  }
  int port() const { return server->port(); }
  /// The server is alive and well.
  void expect_well() { EXPECT_EQ(get(port(), "/x?a=1").body, "/x|1|7"); }

  std::unique_ptr<HttpServer> server;
  std::thread thread;
};

TEST_F(HttpServerTest, AnswersAndSetsHeaders) {
  const RawAnswer answer = get(port(), "/some%20path?a=x%2Fy&n=5");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body, "/some path|x/y|5");
  EXPECT_THAT(answer.head, HasSubstr("Content-Security-Policy: default-src 'self'"));
  EXPECT_THAT(answer.head, HasSubstr("X-Content-Type-Options: nosniff"));
  EXPECT_THAT(answer.head, Not(HasSubstr("Access-Control")));
  EXPECT_EQ(server->url(), "http://127.0.0.1:" + std::to_string(port()) + "/");
}

TEST_F(HttpServerTest, ErrorsOfHandlers) {
  EXPECT_EQ(get(port(), "/x?n=101").status, 400);
  EXPECT_EQ(get(port(), "/x?n=99999999999999999999").status, 400);
  EXPECT_EQ(get(port(), "/x?n=1e3").status, 400);
  const RawAnswer broken = get(port(), "/fail");
  EXPECT_EQ(broken.status, 500);
  EXPECT_THAT(broken.body, HasSubstr("handler <broke>"));
  EXPECT_THAT(broken.head, HasSubstr("application/json"));  // never HTML: the text is not ours
}

TEST_F(HttpServerTest, PacksAndTagsAnswers) {
  const RawAnswer packed = get(port(), "/long", "Accept-Encoding: br, gzip\r\n");
  EXPECT_THAT(packed.head, HasSubstr("Content-Encoding: gzip"));
  EXPECT_EQ(gunzip(packed.body, 1 << 20), std::string(100000, 'a'));
  EXPECT_THAT(get(port(), "/long").head, Not(HasSubstr("Content-Encoding")));
  EXPECT_EQ(get(port(), "/packed").body, "packed text");
  EXPECT_EQ(gunzip(get(port(), "/packed", "Accept-Encoding: gzip\r\n").body, 100), "packed text");
  EXPECT_EQ(get(port(), "/packed", "If-None-Match: \"abc\"\r\n").status, 304);
  EXPECT_EQ(get(port(), "/packed", "If-None-Match: \"abd\"\r\n").status, 200);
}

TEST_F(HttpServerTest, RefusesOtherHostsOriginsAndMethods) {
  EXPECT_EQ(get(port(), "/x", "Host: evil.example\r\n").status, 403);
  EXPECT_EQ(get(port(), "/x", "Host: 127.0.0.1\r\nHost: evil.example\r\n").status, 403);
  EXPECT_EQ(get(port(), "/x", "Origin: http://evil.example\r\n").status, 403);
  EXPECT_EQ(get(port(), "/x", "Origin: null\r\n").status, 403);
  EXPECT_EQ(get(port(), "/x", "Sec-Fetch-Site: cross-site\r\n").status, 403);
  EXPECT_EQ(get(port(), "/", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n").status,
            200);
  EXPECT_EQ(get(port(), "/", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n").status,
            403);
  for (const char* method : {"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"}) {
    const RawClient client(port());
    client.send(std::string(method) +
                " /x HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    EXPECT_EQ(parse_answer(client.receive()).status, 405) << method;
  }
  const RawClient no_host(port());
  no_host.send("GET /x HTTP/1.0\r\n\r\n");
  EXPECT_EQ(parse_answer(no_host.receive()).status, 403);
  expect_well();
}

TEST_F(HttpServerTest, NeverReadsABodyAsTheNextRequest) {
  for (const char* lines : {"Content-Length: 60\r\n", "Transfer-Encoding: chunked\r\n",
                            "Content-Length: 18446744073709551615\r\n"}) {
    const RawClient client(port());
    client.send("GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\n" + std::string(lines) +
                "\r\nGET /smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    const std::string all = client.receive();
    EXPECT_EQ(parse_answer(all).status, 413) << lines;
    EXPECT_THAT(all, Not(HasSubstr("smuggled")));
  }
  expect_well();
}

TEST_F(HttpServerTest, SurvivesNonsense) {
  std::string many;
  for (int i = 0; i < 400; ++i) many += "0-,";
  const std::vector<std::string> lines = {
      "Range: bytes=99999999999999999999999-\r\n",  // beyond every integer type
      "Range: bytes=-99999999999999999999999\r\n",
      "Range: bytes=" + many + "0-\r\n",
      "Range: bytes=5-1\r\n",
      "Content-Type: multipart/form-data; boundary=\r\n",
      "Expect: 100-continue\r\n",
      "Accept-Encoding: gzip;q=0.0.0.0, br;q=999999999999999999999\r\n",
      "X-Triptych-Takes-Gzip: 1\r\n",
      std::string("X: \0\1\2\xff\xfe\r\n", 10),
  };
  for (const std::string& line : lines) {
    const RawAnswer answer = get(port(), "/x", line);
    EXPECT_THAT(answer.status, testing::AnyOf(0, 100, 200, 400, 416)) << line;
    expect_well();
  }
  for (const std::string& text :
       {std::string("\r\n\r\n"), std::string("\0\0\0\0\r\n\r\n", 8), std::string("GET\r\n\r\n"),
        std::string("GET  HTTP/1.1\r\n\r\n"), std::string("GET / HTTP/9.9\r\n\r\n"),
        std::string("\x16\x03\x01\x02\x00", 5),
        std::string("GET http://evil.example/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
        std::string("GET /%00%zz%ff?%=%&&=;a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
        std::string("GET /../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
        std::string("GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")}) {
    const RawClient client(port());
    client.send(text);
    const RawAnswer answer = parse_answer(client.receive(200));
    EXPECT_THAT(answer.body, Not(HasSubstr("root:"))) << text;
    expect_well();
  }
}

TEST_F(HttpServerTest, LimitsSizes) {
  EXPECT_THAT(get(port(), "/" + std::string(9000, 'a')).status, testing::AnyOf(0, 400, 414));
  EXPECT_THAT(get(port(), "/x", "X: " + std::string(9000, 'a') + "\r\n").status,
              testing::AnyOf(0, 400, 431));
  std::string lines;
  for (int i = 0; i < 2000; ++i) lines += "X-" + std::to_string(i) + ": 1\r\n";
  EXPECT_THAT(get(port(), "/x", lines).status, testing::AnyOf(0, 400, 431));
  const RawClient client(port());  // a line that never ends
  bool open = true;
  size_t sent = 0;
  while (open && sent < (size_t{64} << 20)) {
    open = client.send(std::string(65536, 'a'));
    sent += 65536;
  }
  EXPECT_FALSE(open) << "64 MB of one header were taken";
  expect_well();
}

TEST_F(HttpServerTest, DropsSlowClients) {
  const auto begin = std::chrono::steady_clock::now();
  const RawClient client(port());
  bool open = true;
  for (const char c : std::string("GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "))
    client.send(std::string(1, c));
  while (open && std::chrono::steady_clock::now() - begin < 8s) {
    std::this_thread::sleep_for(100ms);
    open = client.send("a");
  }
  EXPECT_FALSE(open) << "a byte now and then keeps a connection for ever";
  expect_well();
}

TEST_F(HttpServerTest, KeepsConnections) {
  const RawClient client(port());
  for (int i = 0; i < 20; ++i) {
    client.send("GET /x?a=" + std::to_string(i) + " HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    EXPECT_THAT(client.receive(3000, "|7"), HasSubstr("/x|" + std::to_string(i) + "|7"));
  }
  // Two requests in one packet are answered one after the other.
  client.send(
      "GET /p1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /p2 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
  EXPECT_THAT(client.receive(3000, "/p2||7"), HasSubstr("/p1||7"));
}

TEST_F(HttpServerTest, ManyConnectionsWaitTheirTurn) {
  restart({.connections = 4, .deadline_s = 1});
  std::vector<std::unique_ptr<RawClient>> idle;
  for (int i = 0; i < 12; ++i) idle.push_back(std::make_unique<RawClient>(port()));
  const RawClient last(port());
  last.send("GET /x?a=1 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(last.receive(10000), HasSubstr("/x|1|7"));
}

TEST_F(HttpServerTest, StreamsUntilTheClientGoes) {
  restart({.streams = 2, .deadline_s = 2});
  const std::string request = "GET /endless HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
  {
    const RawClient a(port()), b(port());
    a.send(request);
    b.send(request);
    EXPECT_THAT(a.receive(3000, "data: 3"), HasSubstr("text/event-stream"));
    b.receive(3000, "data: 0");
    EXPECT_EQ(get(port(), "/endless").status, 503);
    expect_well();
  }
  int status = 503;
  for (int i = 0; i < 50 && status == 503; ++i) {  // the clients are gone: their places come back
    std::this_thread::sleep_for(50ms);
    const RawClient c(port());
    c.send(request);
    status = parse_answer(c.receive(3000, "\r\n\r\n")).status;
  }
  EXPECT_EQ(status, 200);
}

TEST_F(HttpServerTest, StopsWhileAStreamIsOpen) {
  const RawClient client(port());
  client.send("GET /endless HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
  client.receive(3000, "data: 1");
  const auto begin = std::chrono::steady_clock::now();
  server->stop();
  thread.join();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 2s);
  start({});
}

TEST_F(HttpServerTest, Token) {
  restart({.host = "0.0.0.0", .token = "0123456789abcdef"});
  EXPECT_THAT(server->url(), HasSubstr("?token=0123456789abcdef"));
  EXPECT_EQ(get(port(), "/x").status, 401);
  EXPECT_EQ(get(port(), "/x?token=0123456789abcdef").status, 401);  // only the page takes it there
  EXPECT_EQ(get(port(), "/?token=0123456789abcdeg").status, 401);
  EXPECT_EQ(get(port(), "/?token=").status, 401);
  const RawAnswer first = get(port(), "/?token=0123456789abcdef");
  EXPECT_EQ(first.status, 303);
  EXPECT_THAT(first.head, HasSubstr("Location: /\r\n"));
  EXPECT_THAT(first.head, HasSubstr("HttpOnly; SameSite=Strict"));
  EXPECT_EQ(get(port(), "/x", "Cookie: triptych_token=0123456789abcdef\r\n").status, 200);
  EXPECT_EQ(get(port(), "/x", "Cookie: triptych_token=0123\r\n").status, 401);
  EXPECT_EQ(get(port(), "/x", "Authorization: Bearer 0123456789abcdef\r\n").status, 200);
  EXPECT_EQ(get(port(), "/x", "Authorization: Bearer \r\n").status, 401);
  EXPECT_EQ(
      get(port(), "/x", "Cookie: triptych_token=0123456789abcdef\r\nHost: evil.example\r\n").status,
      403);
}

TEST(HttpServerErrors, NeedsATokenForOtherMachines) {
  EXPECT_THROW(HttpServer({.host = "0.0.0.0"}, echo), UsageError);
  EXPECT_THROW(HttpServer({.host = "::"}, echo), UsageError);
}

TEST(HttpServerErrors, NamesATakenPort) {
  const HttpServer first({}, echo);
  EXPECT_THAT([&] { HttpServer({.port = first.port()}, echo); },
              testing::ThrowsMessage<Error>(HasSubstr("is the port taken?")));
}

}  // namespace
}  // namespace triptych::insight
