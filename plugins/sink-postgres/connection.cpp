#include "connection.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>

#include <fmt/format.h>
#include <libpq-fe.h>
#include <poll.h>

namespace millrace {

namespace {

using Kind = ServerError::Kind;
using Clock = std::chrono::steady_clock;

/// By SQLSTATE (PostgreSQL, Appendix A); the first that fits counts.
constexpr std::array<std::pair<std::string_view, Kind>, 18> kKinds{{
    {"40001", Kind::lock},     // serialization failure
    {"40P01", Kind::lock},     // deadlock
    {"55P03", Kind::lock},     // lock_timeout
    {"22", Kind::data},        // does not fit its type
    {"23", Kind::data},        // a constraint
    {"44", Kind::data},        // WITH CHECK OPTION
    {"54000", Kind::data},     // too long for an index
    {"P0001", Kind::data},     // a trigger's RAISE EXCEPTION
    {"28", Kind::login},       // also: pg_hba.conf has no entry
    {"57P04", Kind::fatal},    // the database was dropped
    {"08", Kind::passing},     // connection
    {"25006", Kind::passing},  // read-only: a fail-over
    {"26000", Kind::passing},  // the prepared statement is not known any more
    {"40", Kind::passing},     // roll-back
    {"53", Kind::passing},     // disk full, memory, too many connections
    {"55006", Kind::passing},  // object in use
    {"57", Kind::passing},     // shutdown, cancelled, not up yet
    {"58", Kind::passing},     // errors of the system below
}};

Kind kind_of(std::string_view state) {
  for (const auto& [prefix, kind] : kKinds) {
    if (state.starts_with(prefix)) return kind;
  }
  return Kind::fatal;
}

/// Waits for `events` at the socket; false if the time is over first.
bool wait_for(int socket, short events, Clock::time_point until) {
  pollfd entry{socket, events, 0};
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
    const int ready = ::poll(&entry, 1, static_cast<int>(std::max<std::int64_t>(left, 0)));
    if (ready > 0) return true;
    // What poll itself has against the socket shows at the next use of it.
    if (ready < 0 && errno != EINTR) return true;
    if (ready == 0 && Clock::now() >= until) return false;
  }
}

/// Long before the client gives up on an answer the server gives up on a lock, and says so.
std::int64_t lock_timeout_ms(Duration read_timeout) {
  constexpr Duration kLongest = std::chrono::seconds(50);
  return std::chrono::ceil<std::chrono::milliseconds>(std::min(read_timeout / 2, kLongest)).count();
}

std::string first_line(std::string_view text) {
  return std::string(text.substr(0, text.find('\n')));
}

/// libpq keeps the SQLSTATE of a login that the server refuses in the message alone, as in
/// "FATAL:  28P01: password ..."; empty if there is none.
std::string_view state_in(std::string_view message) {
  constexpr std::size_t kLength = 5;
  for (std::size_t at = message.rfind(":  "); at != std::string_view::npos && at > 0;
       at = message.rfind(":  ", at - 1)) {
    const std::string_view state = message.substr(at + 3, kLength);
    const bool fits = std::ranges::all_of(
        state, [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z'); });
    if (fits && state.size() == kLength && message.substr(at + 3 + kLength).starts_with(": ")) {
      return state;
    }
  }
  return {};
}

bool is_about_tls(std::string_view message) {
  const auto says = [&](std::string_view what) {
    return message.find(what) != std::string_view::npos;
  };
  // The server went away while it was greeted.
  if (says("SSL SYSCALL error") || says("closed unexpectedly")) return false;
  return says("SSL") || says("certificate") || says("private key");
}

}  // namespace

void Connection::Clear::operator()(pg_result* result) const { PQclear(result); }
void Connection::Finish::operator()(pg_conn* connection) const { PQfinish(connection); }

void Connection::open(const ConnectionOptions& options) {
  close();
  name_ = to_string(options.address);
  read_timeout_ = options.read_timeout;
  write_timeout_ = options.write_timeout;
  ServerAddress parameters{{"fallback_application_name", options.application},
                           {"gssencmode", "disable"}};
  for (const auto& [name, value] : options.address) parameters[name] = value;
  constexpr std::array kModes{"disable", "require", "verify-full"};
  parameters["sslmode"] = kModes.at(static_cast<std::size_t>(options.tls));
  if (!options.tls_ca.empty()) parameters["sslrootcert"] = options.tls_ca;
  if (!options.tls_cert.empty()) parameters["sslcert"] = options.tls_cert;
  if (!options.tls_key.empty()) parameters["sslkey"] = options.tls_key;
  parameters["client_encoding"] = "UTF8";
  std::vector<const char*> names;
  std::vector<const char*> values;
  for (const auto& [name, value] : parameters) {
    names.push_back(name.c_str());
    values.push_back(value.c_str());
  }
  names.push_back(nullptr);
  values.push_back(nullptr);
  connection_.reset(PQconnectStartParams(names.data(), values.data(), 0));
  if (!connection_) throw std::bad_alloc();
  try {
    wait_until_connected(options.connect_timeout);
    check_encryption(options.tls);
    execute(
        fmt::format("SET lock_timeout = {}; SET default_transaction_isolation = 'read committed'",
                    lock_timeout_ms(options.read_timeout)));
  } catch (...) {
    close();
    throw;
  }
}

void Connection::wait_until_connected(Duration timeout) {
  pg_conn* const connection = connection_.get();
  const auto until = Clock::now() + timeout;
  if (PQstatus(connection) == CONNECTION_BAD) fail_to_connect();
  PQsetErrorVerbosity(connection, PQERRORS_VERBOSE);  // for the SQLSTATE
  // Notices are no errors, and standard error belongs to the host.
  PQsetNoticeProcessor(
      connection, [](void*, const char*) {}, nullptr);
  PostgresPollingStatusType next = PGRES_POLLING_WRITING;
  while (next != PGRES_POLLING_OK) {
    if (next == PGRES_POLLING_FAILED) fail_to_connect();
    const short events = next == PGRES_POLLING_READING ? POLLIN : POLLOUT;
    if (!wait_for(PQsocket(connection), events, until)) fail_to_answer("being connected to");
    next = PQconnectPoll(connection);
  }
  PQsetErrorVerbosity(connection, PQERRORS_DEFAULT);
  if (PQsetnonblocking(connection, 1) != 0) fail(nullptr);
}

/// Settings in files and in the environment can change what libpq does, so that is looked at.
void Connection::check_encryption(Tls tls) const {
  if (tls != Tls::off && PQsslInUse(connection_.get()) == 0) {
    throw ServerError(fmt::format("{}: the connection is not encrypted", name_), Kind::tls);
  }
}

void Connection::close() noexcept { connection_.reset(); }

void Connection::execute(const std::string& sql) {
  static_cast<void>(result_of(PQsendQuery(connection_.get(), sql.c_str())));
}

std::vector<Connection::Row> Connection::query(const std::string& sql,
                                               const std::vector<std::string>& parameters) {
  std::vector<const char*> values;
  values.reserve(parameters.size());
  for (const std::string& parameter : parameters) values.push_back(parameter.c_str());
  const Result result =
      result_of(PQsendQueryParams(connection_.get(), sql.c_str(), static_cast<int>(values.size()),
                                  nullptr, values.data(), nullptr, nullptr, 0));
  return rows_in(result.get());
}

std::vector<Connection::Row> Connection::rows_in(const pg_result* result) {
  std::vector<Row> rows;
  for (int row = 0; row < PQntuples(result); ++row) {
    Row& into = rows.emplace_back();
    for (int column = 0; column < PQnfields(result); ++column) {
      if (PQgetisnull(result, row, column) != 0) {
        into.emplace_back();
      } else {
        into.emplace_back(PQgetvalue(result, row, column));
      }
    }
  }
  return rows;
}

void Connection::prepare(const std::string& name, const std::string& sql) {
  static_cast<void>(
      result_of(PQsendPrepare(connection_.get(), name.c_str(), sql.c_str(), 0, nullptr)));
}

Connection::Result Connection::run_prepared(const std::string& name,
                                            std::span<const std::string> parameters) {
  std::vector<const char*> values;
  std::vector<int> lengths;
  for (const std::string& parameter : parameters) {
    values.push_back(parameter.data());
    lengths.push_back(static_cast<int>(parameter.size()));
  }
  const std::vector<int> binary(parameters.size(), 1);
  return result_of(PQsendQueryPrepared(connection_.get(), name.c_str(),
                                       static_cast<int>(parameters.size()), values.data(),
                                       lengths.data(), binary.data(), 0));
}

std::vector<Connection::Row> Connection::rows_of(const std::string& name,
                                                 std::span<const std::string> parameters) {
  return rows_in(run_prepared(name, parameters).get());
}

std::uint64_t Connection::run(const std::string& name, std::span<const std::string> parameters) {
  const Result result = run_prepared(name, parameters);
  const std::string_view count = PQcmdTuples(result.get());
  std::uint64_t changed = 0;
  std::from_chars(count.data(), count.data() + count.size(), changed);
  return changed;
}

/// A constraint that is put off until COMMIT could not be told from a server that fails there.
void Connection::begin() { execute("BEGIN; SET CONSTRAINTS ALL IMMEDIATE"); }

bool Connection::roll_back() noexcept {
  try {
    if (!connection_) return false;
    execute("ROLLBACK");
    return true;
  } catch (...) {
    return false;
  }
}

void Connection::send_all() {
  pg_conn* const connection = connection_.get();
  while (true) {
    const int left = PQflush(connection);
    if (left < 0) fail(nullptr);
    if (left == 0) return;
    if (!wait_for(PQsocket(connection), POLLIN | POLLOUT, Clock::now() + write_timeout_)) {
      fail_to_answer("being sent to");
    }
    // The server may be stuck until what it has to say is read.
    if (PQconsumeInput(connection) == 0) fail(nullptr);
  }
}

/// Of the last statement of what was sent; throws the first error.
Connection::Result Connection::result_of(int sent) {
  pg_conn* const connection = connection_.get();
  if (sent == 0) fail(nullptr);
  send_all();
  const auto until = Clock::now() + read_timeout_;
  Result last;
  Result error;
  while (true) {
    while (PQisBusy(connection) != 0) {
      if (!wait_for(PQsocket(connection), POLLIN, until)) fail_to_answer("being asked");
      if (PQconsumeInput(connection) == 0) fail(nullptr);
    }
    Result next(PQgetResult(connection));
    if (!next) break;
    const ExecStatusType status = PQresultStatus(next.get());
    const bool good =
        status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK || status == PGRES_EMPTY_QUERY;
    if (!good && !error)
      error = std::move(next);
    else
      last = std::move(next);
  }
  if (error || !last) fail(error.get());
  return last;
}

void Connection::fail_to_connect() const {
  const std::string message = PQerrorMessage(connection_.get());
  const std::string_view state = state_in(message);
  if (!state.empty()) {
    const std::string told = message.substr(message.rfind(state) + state.size() + 2);
    throw ServerError(fmt::format("{}: {} (SQLSTATE {})", name_, first_line(told), state),
                      kind_of(state));
  }
  const bool login = PQconnectionNeedsPassword(connection_.get()) != 0 ||
                     message.find("authentication") != std::string::npos;
  const Kind kind = login ? Kind::login : is_about_tls(message) ? Kind::tls : Kind::passing;
  throw ServerError(fmt::format("{}: {}", name_, first_line(message)), kind);
}

/// `result` is null where there is none: then the connection is lost.
void Connection::fail(const pg_result* result) const {
  const char* const state =
      result == nullptr ? nullptr : PQresultErrorField(result, PG_DIAG_SQLSTATE);
  if (state == nullptr) {
    const char* const message =
        result == nullptr ? PQerrorMessage(connection_.get()) : PQresultErrorMessage(result);
    throw ServerError(fmt::format("{}: {}", name_, first_line(message)), Kind::passing);
  }
  const char* const primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
  throw ServerError(
      fmt::format("{}: {} (SQLSTATE {})", name_, primary == nullptr ? "" : primary, state),
      kind_of(state));
}

void Connection::fail_to_answer(std::string_view doing) const {
  throw ServerError(fmt::format("{}: it does not answer in time while {}", name_, doing),
                    Kind::passing);
}

}  // namespace millrace
