#pragma once

#include <functional>
#include <memory>
#include <string>

namespace millrace::host {

/// A small HTTP server for people and monitoring (`--admin`), on a thread of its own:
/// GET /health: 200 while the pipeline can do its work, else 503; JSON.
/// GET /metrics: Prometheus text format 0.0.4.
/// It answers without authentication and changes nothing; bind it to a private address.
class Admin {
 public:
  struct Readiness {
    bool ok = true;
    std::string json;
  };
  struct Answers {
    std::function<Readiness()> health;
    std::function<std::string()> metrics;
  };

  /// `address` is "HOST:PORT"; port 0 takes a free one. Throws std::runtime_error, saying why, if
  /// it cannot listen there. The functions are called on the server's thread.
  Admin(const std::string& address, Answers answers);
  /// Throws std::runtime_error, saying why, if `address` cannot be one.
  static void check(const std::string& address);
  Admin(const Admin&) = delete;
  Admin& operator=(const Admin&) = delete;
  ~Admin();

  /// From now on these answer; when it returns, the earlier ones are called no more.
  void answer(Answers answers);
  /// Where it listens, as a URL.
  [[nodiscard]] std::string url() const;

 private:
  class Server;
  std::unique_ptr<Server> server_;
};

}  // namespace millrace::host
