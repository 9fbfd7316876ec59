#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/time.h"

#include "server_address.h"
#include "tls_options.h"

namespace sql {
class Connection;
class PreparedStatement;
class SQLException;
}  // namespace sql

namespace millrace {

struct ConnectionOptions {
  ServerAddress address;
  Tls tls = Tls::off;
  std::string tls_ca;
  std::string tls_cert;
  std::string tls_key;
  Duration connect_timeout{};
  Duration read_timeout{};
  Duration write_timeout{};
};

/// What the server or the client library said no with.
class ServerError : public std::runtime_error {
 public:
  ServerError(const std::string& what, int code, bool passes)
      : std::runtime_error(what), code_(code), passes_(passes) {}

  /// MySQL's number of the error.
  [[nodiscard]] int code() const noexcept { return code_; }
  /// Trying again later may help.
  [[nodiscard]] bool passes() const noexcept { return passes_; }

 private:
  int code_;
  bool passes_;
};

/// Whether the same may work later, after an error of this number and SQLSTATE.
[[nodiscard]] bool passing_error(int code, std::string_view state);

/// As the client library takes timeouts: in whole seconds, rounded up; 0 would be for ever.
[[nodiscard]] int seconds(Duration time);

/// A connection to a MySQL or MariaDB server, in one transaction after the other. Threads: one at a
/// time. Every function that speaks to the server throws ServerError, which names the server and
/// never a password; after one the connection is only good for `roll_back` or `close`.
class Connection {
 public:
  Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection();

  /// Replaces a connection that is open.
  void open(const ConnectionOptions& options);
  [[nodiscard]] bool is_open() const noexcept { return connection_ != nullptr; }
  /// What was not committed is taken back by the server. Statements must be gone before.
  void close() noexcept;

  void execute(const std::string& sql);
  using Row = std::vector<std::optional<std::string>>;
  [[nodiscard]] std::vector<Row> query(const std::string& sql);
  void commit();
  /// Whether the connection can be used further.
  [[nodiscard]] bool roll_back() noexcept;
  /// How long a message to the server may be, in bytes.
  [[nodiscard]] std::size_t max_packet() const noexcept { return max_packet_; }

  /// A prepared statement. Bind all parameters, from 1 on, then run.
  class Statement {
   public:
    Statement(Connection& connection, const std::string& sql);
    Statement(Statement&&) noexcept;
    Statement& operator=(Statement&&) noexcept;
    ~Statement();
    void bind(unsigned parameter, std::string_view text);
    void bind(unsigned parameter, std::int64_t number);
    void bind(unsigned parameter, std::uint64_t number);
    void bind(unsigned parameter, double number);
    void bind_null(unsigned parameter);
    /// Returns how many rows were changed.
    [[nodiscard]] std::uint64_t run();

   private:
    Connection* connection_;
    std::unique_ptr<sql::PreparedStatement> statement_;
  };

 private:
  void set_up();
  [[noreturn]] void fail(const sql::SQLException& error) const;

  std::string name_;
  std::unique_ptr<sql::Connection> connection_;
  std::size_t max_packet_ = 0;
};

}  // namespace millrace
