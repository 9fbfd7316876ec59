#pragma once

/// A real HTTP server on a port of its own that answers as a test says, over TCP or TLS.

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace boost::asio::ssl {
class context;
}

namespace millrace {

struct Request {
  std::string target;
  std::string agent;
  std::string chunk;
  std::string authorization;
  std::string encoding;
  std::string body;
};

struct Reply {
  enum class How { answer, before_body, hang, cut };
  unsigned status = 200;
  std::string body{};
  std::vector<std::pair<std::string, std::string>> headers{};
  How how = How::answer;
  /// Makes the body when the whole request has come.
  std::function<std::string(const Request& whole)> made{};
};

class TestServer {
 public:
  using Tls = boost::asio::ssl::context;
  /// Called with every request's head, on the thread of its connection.
  using Rule = std::function<Reply(const Request& head)>;

  explicit TestServer(Rule rule = {}, std::uint16_t port = 0, Tls* tls = nullptr);
  TestServer(const TestServer&) = delete;
  TestServer& operator=(const TestServer&) = delete;
  ~TestServer();

  [[nodiscard]] std::uint16_t port() const;
  [[nodiscard]] std::string url() const;
  void rule(Rule rule);
  /// Heads of all that came.
  [[nodiscard]] std::vector<Request> heads() const;
  /// Those that were read to the end and answered with a 2xx.
  [[nodiscard]] std::vector<Request> taken() const;

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

/// The tests' own servers are asked directly, whatever the environment says.
inline void without_proxy() {
  for (const char* name :
       {"http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"}) {
    ::unsetenv(name);
  }
}

/// The first requests are answered by `replies`, in order, the others by `then`.
inline TestServer::Rule first(std::vector<Reply> replies, Reply then = {}) {
  auto next = std::make_shared<std::atomic<std::size_t>>(0);
  return [replies = std::move(replies), then = std::move(then), next](const Request&) {
    const std::size_t i = (*next)++;
    return i < replies.size() ? replies[i] : then;
  };
}

}  // namespace millrace
