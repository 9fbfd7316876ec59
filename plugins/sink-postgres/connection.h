#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/time.h"

#include "server_address.h"
#include "tls_options.h"

struct pg_conn;
struct pg_result;

namespace millrace {

struct ConnectionOptions {
  ServerAddress address;
  std::string application;  ///< how the server's lists call this client
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
  enum class Kind : std::uint8_t {
    passing,  ///< trying again later on a new connection may help
    lock,     ///< so may trying again on this connection after a roll-back
    data,     ///< the values of a row are refused; the connection is good after a roll-back
    tls,      ///< no encryption, or not with whom it should be
    login,    ///< user or password
    fatal
  };

  ServerError(const std::string& what, Kind kind) : std::runtime_error(what), kind_(kind) {}

  [[nodiscard]] Kind kind() const noexcept { return kind_; }
  /// Trying again later may help.
  [[nodiscard]] bool passes() const noexcept {
    return kind_ == Kind::passing || kind_ == Kind::lock || kind_ == Kind::tls;
  }
  /// The connection can be used further, after a roll-back.
  [[nodiscard]] bool keeps_connection() const noexcept {
    return kind_ == Kind::lock || kind_ == Kind::data;
  }

 private:
  Kind kind_;
};

/// A connection to a PostgreSQL server. Threads: one at a time. Every function that speaks to the
/// server throws ServerError, which names the server and never a password.
class Connection {
 public:
  /// Replaces a connection that is open.
  void open(const ConnectionOptions& options);
  [[nodiscard]] bool is_open() const noexcept { return connection_ != nullptr; }
  /// What was not committed is taken back by the server.
  void close() noexcept;

  /// Statements with ; between them.
  void execute(const std::string& sql);
  using Row = std::vector<std::optional<std::string>>;
  [[nodiscard]] std::vector<Row> query(const std::string& sql,
                                       const std::vector<std::string>& parameters = {});
  /// Makes `name` stand for a statement as long as the connection is open.
  void prepare(const std::string& name, const std::string& sql);
  /// `parameters` are in PostgreSQL's binary form. Returns how many rows were changed.
  [[nodiscard]] std::uint64_t run(const std::string& name, std::span<const std::string> parameters);
  /// The same for a statement that gives rows.
  [[nodiscard]] std::vector<Row> rows_of(const std::string& name,
                                         std::span<const std::string> parameters);

  void begin();
  void commit() { execute("COMMIT"); }
  /// Whether the connection can be used further.
  [[nodiscard]] bool roll_back() noexcept;

 private:
  struct Clear {
    void operator()(pg_result* result) const;
  };
  using Result = std::unique_ptr<pg_result, Clear>;
  struct Finish {
    void operator()(pg_conn* connection) const;
  };

  [[nodiscard]] Result run_prepared(const std::string& name,
                                    std::span<const std::string> parameters);
  [[nodiscard]] static std::vector<Row> rows_in(const pg_result* result);
  void wait_until_connected(Duration timeout);
  void check_encryption(Tls tls) const;
  void send_all();
  [[nodiscard]] Result result_of(int sent);
  [[noreturn]] void fail_to_connect() const;
  [[noreturn]] void fail(const pg_result* result) const;
  [[noreturn]] void fail_to_answer(std::string_view doing) const;

  std::string name_;
  Duration read_timeout_{};
  Duration write_timeout_{};
  std::unique_ptr<pg_conn, Finish> connection_;
};

}  // namespace millrace
