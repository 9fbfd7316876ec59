#include "sink_mysql.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <unistd.h>

namespace millrace {

namespace {

/// Room for one row with texts as long as a table of this stage allows, and the message's head.
constexpr std::size_t kLeastPacket = 16384;

}  // namespace

void SinkMysql::check(const MysqlOptions& options, Findings& findings) {
  // A secret that is not known here is left as it stands in the file.
  if (options.server.find("${") == std::string::npos) {
    try {
      const ServerAddress address = parse_server_address(options.server);
      if (!address.password.empty() && !options.password.empty()) {
        findings.add("password", "there is a password in 'server' already");
      }
      if (!address.socket.empty() && options.tls != Tls::off) {
        findings.add("tls", "a unix socket needs no TLS");
      }
    } catch (const std::invalid_argument& error) {
      findings.add("server", error.what());
    }
  }
  const bool plain = std::ranges::all_of(options.table, [](unsigned char c) {
    return (c < 0x80 && std::isalnum(c) != 0) || c == '_' || c == '$' || c == '-';
  });
  constexpr std::size_t kLongest = 55;  // with "_readable" no more than the server's 64
  if (!plain || options.table.empty() || options.table.size() > kLongest) {
    findings.add("table", "expected a name of at most 55 letters, digits, _, $ and -");
  }
  if (options.tls_cert.empty() != options.tls_key.empty()) {
    findings.add(options.tls_cert.empty() ? "tls_cert" : "tls_key",
                 "certificate and key go together; one is missing");
  }
  if (options.tls == Tls::off && (!options.tls_ca.empty() || !options.tls_cert.empty())) {
    findings.add("tls", "is off, but there are other options for TLS");
  }
  if (options.tls == Tls::verify && options.tls_ca.empty()) {
    findings.add("tls_ca", "is needed for tls = \"verify\"");
  }
  if (options.tls == Tls::required && !options.tls_ca.empty()) {
    findings.add("tls_ca", "is not looked at with tls = \"required\"; expected \"verify\"");
  }
}

void SinkMysql::open(Context& context) {
  context_ = &context;
  stored_ = &context.counter("stored");
  labelled_ = &context.counter("labelled");
  already_stored_ = &context.counter("already-stored");
  reconnected_ = &context.counter("reconnected");
  read_address();
  connect_first();
  try {
    if (options_.create) create_schema(connection_, options_.table);
    limits_ = check_schema(connection_, options_.table);
    writer_.try_out();
    connection_.commit();
  } catch (const ServerError& error) {
    disconnect();
    if (error.passes()) throw Transient(error.what());
    throw ConfigError("table", error.what());
  }
}

void SinkMysql::read_address() {
  try {
    server_.address = parse_server_address(options_.server);
  } catch (const std::invalid_argument& error) {
    throw ConfigError("server", error.what());
  }
  if (!options_.password.empty()) server_.address.password = options_.password;
  const auto readable = [](const char* option, const std::string& path) {
    if (!path.empty() && ::access(path.c_str(), R_OK) != 0) {
      const std::error_code error(errno, std::system_category());
      throw ConfigError(option, fmt::format("cannot read '{}': {}", path, error.message()));
    }
    return path;
  };
  server_.tls = options_.tls;
  server_.tls_ca = readable("tls_ca", options_.tls_ca);
  server_.tls_cert = readable("tls_cert", options_.tls_cert);
  server_.tls_key = readable("tls_key", options_.tls_key);
  server_.connect_timeout = options_.connect_timeout;
  server_.read_timeout = options_.read_timeout;
  server_.write_timeout = options_.write_timeout;
}

/// At the start nobody else tries again, and servers are often started together with this.
void SinkMysql::connect_first() {
  constexpr std::chrono::milliseconds kPause(250);
  constexpr int kTlsError = 2026;
  const auto until = std::chrono::steady_clock::now() + options_.wait;
  for (bool told = false;; told = true) {
    try {
      return connect();
    } catch (const ServerError& error) {
      if (error.code() == kTlsError) throw ConfigError("tls", error.what());
      if (!error.passes()) {
        constexpr int kWrongPassword = 1045;
        const bool password = error.code() == kWrongPassword && !options_.password.empty();
        throw ConfigError(password ? "password" : "server", error.what());
      }
      if (std::chrono::steady_clock::now() + kPause > until) throw Transient(error.what());
      if (!told) context_->warning(fmt::format("{}; waiting for it", error.what()));
    }
    std::this_thread::sleep_for(kPause);
  }
}

void SinkMysql::connect() {
  disconnect();
  connection_.open(server_);
  if (connection_.max_packet() < kLeastPacket) {
    const std::size_t size = connection_.max_packet();
    disconnect();
    throw ServerError(fmt::format("{}: max_allowed_packet is {}, expected {} at least",
                                  to_string(server_.address), size, kLeastPacket),
                      0, false);
  }
}

void SinkMysql::disconnect() noexcept {
  writer_.forget();
  connection_.close();
}

void SinkMysql::close() noexcept {
  disconnect();
  // Receipts of what is not stored fail here.
  waiting_.clear();
}

void SinkMysql::write(Batch<Verdict>& in) {
  reject_unfit(in);
  const Timestamp now = context_->clock().now();
  const std::size_t rows = waiting_rows_ + in.items.size();
  if (rows == 0) return;
  if (due(rows, now)) return store_all(in.items);  // the host resolves the receipt of `in`
  if (in.items.empty()) return;
  if (!waiting_since_) waiting_since_ = now;
  waiting_rows_ = rows;
  waiting_.push_back(std::move(in));
}

void SinkMysql::flush() {
  if (waiting_rows_ != 0) store_all({});
}

/// One row that does not fit would take a whole transaction with it.
void SinkMysql::reject_unfit(const Batch<Verdict>& in) const {
  std::vector<std::size_t> unfit;
  std::string reason;
  for (std::size_t i = 0; i < in.items.size(); ++i) {
    std::string why = misfit(in.items[i], limits_);
    if (why.empty()) continue;
    if (reason.empty()) reason = std::move(why);
    unfit.push_back(i);
  }
  if (!unfit.empty()) throw Rejected(reason, std::move(unfit));
}

bool SinkMysql::due(std::size_t rows, Timestamp now) const {
  const Timestamp since = waiting_since_.value_or(now);
  // A wall clock that was set back would let the rows wait for as long.
  return rows >= options_.batch || now < since || now - since >= options_.max_wait;
}

/// Stores what waits and `last` in one transaction. If that fails, everything is as before.
void SinkMysql::store_all(const std::vector<Verdict>& last) {
  std::vector<const Verdict*> rows;
  rows.reserve(waiting_rows_ + last.size());
  for (const Batch<Verdict>& batch : waiting_) {
    for (const Verdict& verdict : batch.items) rows.push_back(&verdict);
  }
  for (const Verdict& verdict : last) rows.push_back(&verdict);
  // In the key's order: two sinks with the same sessions wait for each other instead of locking
  // each other out, and the server writes its pages once.
  std::ranges::stable_sort(rows, {}, [](const Verdict* row) { return row->session.id; });
  Outcomes outcomes;
  try {
    if (!connection_.is_open()) {
      connect();
      reconnected_->add();
    }
    outcomes = writer_.store(rows, context_->clock().now());
    connection_.commit();
  } catch (const ServerError& error) {
    constexpr int kLockTimeout = 1205;
    constexpr int kDeadlock = 1213;
    const bool lock = error.code() == kLockTimeout || error.code() == kDeadlock;
    if (!lock || !connection_.roll_back()) disconnect();
    if (error.passes()) throw Transient(error.what());
    throw;
  } catch (...) {
    disconnect();
    throw;
  }
  for (Batch<Verdict>& batch : waiting_) batch.receipt.done();
  waiting_.clear();
  waiting_rows_ = 0;
  waiting_since_.reset();
  stored_->add(outcomes.stored);
  labelled_->add(outcomes.labelled);
  already_stored_->add(rows.size() - outcomes.stored - outcomes.labelled);
}

}  // namespace millrace

using namespace millrace;

MILLRACE_PLUGIN(
    "sink-mysql", MILLRACE_VERSION,
    sink<SinkMysql, MysqlOptions>(
        "sink-mysql", "Stores sessions in a table of MySQL or MariaDB",
        option<&MysqlOptions::server>(
            "server",
            "mysql://user:password@host:port/database, or "
            "mysql://user@/database?socket=/path/of/socket; the port is 3306 if it is not given, "
            "and what would be mistaken for a part of the form is written %XX")
            .required()
            .secret(),
        option<&MysqlOptions::password>("password", "the user's password, if it is not in 'server'")
            .secret(),
        option<&MysqlOptions::table>("table", "the table of the database"),
        option<&MysqlOptions::create>(
            "create",
            "makes the table and the view TABLE_readable where they are "
            "not there yet; otherwise a table that is missing is an error"),
        option<&MysqlOptions::batch>(
            "batch",
            "rows of one transaction; until so many are together they wait in memory, not "
            "acknowledged")
            .between(1, 1000000),
        option<&MysqlOptions::max_wait>(
            "max_wait",
            "a transaction is made at the latest so long after its first row came; \"0s\": one for "
            "every batch that comes")
            .at_least(Duration(0)),
        option<&MysqlOptions::wait>(
            "wait",
            "how long the start waits for a server that cannot be reached; later 'retry_for' says "
            "that")
            .between(Duration(0), std::chrono::hours(1)),
        option<&MysqlOptions::connect_timeout>("connect_timeout",
                                               "how long one attempt to connect may take; this and "
                                               "the next two count in whole seconds, rounded up")
            .between(std::chrono::seconds(1), std::chrono::hours(1)),
        option<&MysqlOptions::read_timeout>(
            "read_timeout",
            "how long the server may take for an answer; half of it, 50 s at most, is how long it "
            "waits for rows that another has locked")
            .between(std::chrono::seconds(2), std::chrono::hours(1)),
        option<&MysqlOptions::write_timeout>("write_timeout",
                                             "how long sending to the server may be stuck")
            .between(std::chrono::seconds(1), std::chrono::hours(1)),
        option<&MysqlOptions::tls>(
            "tls",
            "off: no encryption; required: encrypted, whoever the server is; verify: the server's "
            "certificate must be from 'tls_ca' and bear the host's name")
            .choices({{"off", Tls::off}, {"required", Tls::required}, {"verify", Tls::verify}}),
        option<&MysqlOptions::tls_ca>("tls_ca", "file of the authority's certificate (PEM)"),
        option<&MysqlOptions::tls_cert>("tls_cert",
                                        "file of this client's certificate, if the server asks for "
                                        "one"),
        option<&MysqlOptions::tls_key>("tls_key", "file of the key of 'tls_cert'"))
        .accepts<Session>(&unlabelled)
        .checked(&SinkMysql::check))
