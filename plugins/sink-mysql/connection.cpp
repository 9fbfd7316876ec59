#include "connection.h"

#include <algorithm>
#include <array>
#include <chrono>

#include <cppconn/connection.h>
#include <cppconn/driver.h>
#include <cppconn/exception.h>
#include <cppconn/prepared_statement.h>
#include <cppconn/resultset.h>
#include <cppconn/resultset_metadata.h>
#include <cppconn/statement.h>
#include <fmt/format.h>
#include <mysql_driver.h>

namespace millrace {

namespace {

/// Errors after which the same may work later, but those of connections (SQLSTATE 08, 40).
constexpr std::array kPassing{
    1020,  // a row was changed in between
    1021,  // disk full
    1030,  // the storage engine failed; a full disk, in most cases
    1037,  // out of memory
    1038,
    1040,  // too many connections
    1041,
    1053,  // shutdown in progress
    1114,  // table full; also a full disk
    1158,  // network errors
    1159, 1160, 1161,
    1180,  // error during COMMIT
    1203,  // more connections of this user than allowed
    1205,  // lock wait timeout
    1206,
    1213,  // deadlock
    1226,  // a limit of this user is exceeded
    1243,  // the prepared statement is not known any more
    1290,  // the server is in read-only mode: a fail-over
    1317,  // query was interrupted
    1615,  // to be prepared again
    1836,
    1927,  // connection was killed
    1969,  // statement timeout
    2002,  // no connection
    2003,
    2005,  // host name is not known: a name server that is not up
    2006,  // server has gone away
    2012,  // error in the handshake
    2013,  // lost connection
    2026,  // TLS
    2030,  // not prepared
    2055, 3024,
    3032,  // offline mode
    3100,  // replication hooks failed
    3101,
    3168,  // the server is not available
    3169,  // the session was killed
    4031,  // the session was idle for too long, as MySQL says it
};

/// Long before the client gives up on an answer the server gives up on a lock, and says so.
int lock_timeout(Duration read_timeout) { return std::clamp(seconds(read_timeout) / 2, 1, 50); }

}  // namespace

bool passing_error(int code, std::string_view state) {
  return std::ranges::find(kPassing, code) != kPassing.end() || state.starts_with("08") ||
         state.starts_with("40");
}

int seconds(Duration time) {
  return static_cast<int>(std::chrono::ceil<std::chrono::seconds>(time).count());
}

Connection::Connection() = default;
Connection::~Connection() { close(); }

void Connection::open(const ConnectionOptions& options) {
  close();
  const ServerAddress& address = options.address;
  name_ = to_string(address);
  sql::ConnectOptionsMap map;
  if (!address.socket.empty()) {
    map["hostName"] = sql::SQLString("unix://" + address.socket);
  } else {
    const bool v6 = address.host.find(':') != std::string::npos;
    map["hostName"] = sql::SQLString(
        fmt::format("tcp://{}{}{}:{}", v6 ? "[" : "", address.host, v6 ? "]" : "", address.port));
  }
  map["userName"] = sql::SQLString(address.user);
  map["password"] = sql::SQLString(address.password);
  map["schema"] = sql::SQLString(address.database);
  map["OPT_CHARSET_NAME"] = sql::SQLString("utf8mb4");
  map["OPT_CONNECT_TIMEOUT"] = seconds(options.connect_timeout);
  map["OPT_READ_TIMEOUT"] = seconds(options.read_timeout);
  map["OPT_WRITE_TIMEOUT"] = seconds(options.write_timeout);
  if (options.tls != Tls::off) {
    map["sslEnforce"] = true;
    map["sslVerify"] = options.tls == Tls::verify;
    if (!options.tls_ca.empty()) map["sslCA"] = sql::SQLString(options.tls_ca);
    if (!options.tls_cert.empty()) map["sslCert"] = sql::SQLString(options.tls_cert);
    if (!options.tls_key.empty()) map["sslKey"] = sql::SQLString(options.tls_key);
  }
  try {
    connection_.reset(sql::mysql::get_driver_instance()->connect(map));
    // The library takes options it does not know without a word, so what it does is looked at.
    if (options.tls != Tls::off) {
      const auto cipher = query("SHOW SESSION STATUS LIKE 'Ssl_cipher'");
      constexpr int kTlsError = 2026;
      if (cipher.empty() || cipher[0].at(1).value_or("").empty()) {
        throw ServerError(fmt::format("{}: the connection is not encrypted", name_), kTlsError,
                          true);
      }
    }
    execute("SET NAMES utf8mb4");
    // Data that does not fit must be an error and never cut.
    execute(
        fmt::format("SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', "
                    "innodb_lock_wait_timeout = {}",
                    lock_timeout(options.read_timeout)));
    // A label of another writer must be seen, though it came after this transaction began.
    execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED");
    max_packet_ = std::stoul(query("SELECT @@max_allowed_packet").at(0).at(0).value_or("0"));
    connection_->setAutoCommit(false);
  } catch (const sql::SQLException& error) {
    close();
    fail(error);
  } catch (...) {
    close();
    throw;
  }
}

void Connection::close() noexcept { connection_.reset(); }

void Connection::execute(const std::string& sql) {
  try {
    const std::unique_ptr<sql::Statement> statement(connection_->createStatement());
    statement->execute(sql);
  } catch (const sql::SQLException& error) {
    fail(error);
  }
}

std::vector<Connection::Row> Connection::query(const std::string& sql) {
  try {
    const std::unique_ptr<sql::Statement> statement(connection_->createStatement());
    const std::unique_ptr<sql::ResultSet> result(statement->executeQuery(sql));
    const unsigned columns = result->getMetaData()->getColumnCount();
    std::vector<Row> rows;
    while (result->next()) {
      Row& row = rows.emplace_back();
      for (unsigned column = 1; column <= columns; ++column) {
        const std::string text = result->getString(column);
        row.push_back(result->isNull(column) ? std::nullopt : std::optional(text));
      }
    }
    return rows;
  } catch (const sql::SQLException& error) {
    fail(error);
  }
}

// As statements: the library's own commit and rollback do not look at whether they worked.
void Connection::commit() { execute("COMMIT"); }

bool Connection::roll_back() noexcept {
  try {
    if (!connection_) return false;
    execute("ROLLBACK");
    return true;
  } catch (...) {
    return false;
  }
}

void Connection::fail(const sql::SQLException& error) const {
  throw ServerError(fmt::format("{}: {} (error {})", name_, error.what(), error.getErrorCode()),
                    error.getErrorCode(), passing_error(error.getErrorCode(), error.getSQLState()));
}

// --- Statement
// ----------------------------------------------------------------------------------

Connection::Statement::Statement(Connection& connection, const std::string& sql)
    : connection_(&connection) {
  try {
    statement_.reset(connection.connection_->prepareStatement(sql));
  } catch (const sql::SQLException& error) {
    connection.fail(error);
  }
}

Connection::Statement::Statement(Statement&&) noexcept = default;
Connection::Statement& Connection::Statement::operator=(Statement&&) noexcept = default;
Connection::Statement::~Statement() = default;

void Connection::Statement::bind(unsigned parameter, std::string_view text) {
  statement_->setString(parameter,
                        sql::SQLString(text.data() == nullptr ? "" : text.data(), text.size()));
}
void Connection::Statement::bind(unsigned parameter, std::int64_t number) {
  statement_->setInt64(parameter, number);
}
void Connection::Statement::bind(unsigned parameter, std::uint64_t number) {
  statement_->setUInt64(parameter, number);
}
void Connection::Statement::bind(unsigned parameter, double number) {
  statement_->setDouble(parameter, number);
}
void Connection::Statement::bind_null(unsigned parameter) { statement_->setNull(parameter, 0); }

std::uint64_t Connection::Statement::run() {
  try {
    return static_cast<std::uint64_t>(statement_->executeUpdate());
  } catch (const sql::SQLException& error) {
    connection_->fail(error);
  }
}

}  // namespace millrace
