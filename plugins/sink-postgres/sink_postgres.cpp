#include "sink_postgres.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "schema.h"

namespace millrace {

namespace {

/// Why the verdict cannot be a row, which the server could not tell, or nothing.
std::string misfit(const Verdict& verdict) {
  constexpr auto kLargest = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  for (const auto& [column, value] : {std::pair{"bytes", verdict.session.bytes},
                                      std::pair{"payload_bytes", verdict.session.payload_bytes}}) {
    if (value > kLargest) {
      return fmt::format("'{}' is {}, its column takes {}", column, value, kLargest);
    }
  }
  return {};
}

TlsOptions tls_options(const PostgresOptions& options) {
  return {options.tls, options.tls_ca, options.tls_cert, options.tls_key};
}

}  // namespace

void SinkPostgres::check(const PostgresOptions& options, Findings& findings) {
  // A secret that is not known here is left as it stands in the file.
  if (options.server.find("${") == std::string::npos) {
    try {
      const ServerAddress address = parse_server_address(options.server);
      if (address.contains("password") && !options.password.empty()) {
        findings.add("password", "there is a password in 'server' already");
      }
      if (is_socket(address) && options.tls != Tls::off) {
        findings.add("tls", "a unix socket needs no TLS");
      }
    } catch (const std::invalid_argument& error) {
      findings.add("server", error.what());
    }
  }
  constexpr std::size_t kLongest = 54;  // with "_readable" no more than the server's 63
  check_table_name(options.table, kLongest, findings);
  check_tls_options(tls_options(options), findings);
}

void SinkPostgres::open(Context& context) {
  context_ = &context;
  stored_ = &context.counter("stored");
  labelled_ = &context.counter("labelled");
  already_stored_ = &context.counter("already-stored");
  reconnected_ = &context.counter("reconnected");
  others_.open(context);
  read_address();
  connect_first();
  try {
    if (options_.create) create_schema(connection_, options_.table);
    check_schema(connection_, options_.table);
    writer_.prepare();
  } catch (const ServerError& error) {
    connection_.close();
    if (error.passes()) throw Transient(error.what());
    throw ConfigError("table", error.what());
  }
}

void SinkPostgres::read_address() {
  try {
    server_.address = parse_server_address(options_.server);
  } catch (const std::invalid_argument& error) {
    throw ConfigError("server", error.what());
  }
  if (!options_.password.empty()) server_.address["password"] = options_.password;
  expect_readable(tls_options(options_));
  server_.application = fmt::format("millrace {}", context_->stage());
  server_.tls = options_.tls;
  server_.tls_ca = options_.tls_ca;
  server_.tls_cert = options_.tls_cert;
  server_.tls_key = options_.tls_key;
  server_.connect_timeout = options_.connect_timeout;
  server_.read_timeout = options_.read_timeout;
  server_.write_timeout = options_.write_timeout;
}

/// At the start nobody else tries again, and servers are often started together with this.
void SinkPostgres::connect_first() {
  constexpr std::chrono::milliseconds kPause(250);
  const auto until = std::chrono::steady_clock::now() + options_.wait;
  for (bool told = false;; told = true) {
    try {
      return connection_.open(server_);
    } catch (const ServerError& error) {
      if (error.kind() == ServerError::Kind::tls) throw ConfigError("tls", error.what());
      if (!error.passes()) {
        const bool password =
            error.kind() == ServerError::Kind::login && !options_.password.empty();
        throw ConfigError(password ? "password" : "server", error.what());
      }
      if (std::chrono::steady_clock::now() + kPause > until) throw Transient(error.what());
      if (!told) context_->warning(fmt::format("{}; waiting for it", error.what()));
    }
    std::this_thread::sleep_for(kPause);
  }
}

void SinkPostgres::reconnect() {
  connection_.open(server_);
  writer_.prepare();
  reconnected_->add();
}

void SinkPostgres::write(Batch<Verdict>& in) {
  if (in.items.empty()) return;
  std::vector<Refused> refused;
  for (const Verdict& verdict : in.items) {
    if (std::string why = misfit(verdict); !why.empty()) refused.push_back({&verdict, why});
  }
  if (refused.empty()) {
    std::vector<const Verdict*> rows;
    rows.reserve(in.items.size());
    for (const Verdict& verdict : in.items) rows.push_back(&verdict);
    // In the key's order: two sinks with the same sessions wait for each other instead of locking
    // each other out.
    std::ranges::stable_sort(rows, {}, [](const Verdict* row) { return row->session.id; });
    try {
      refused = store(rows);
    } catch (const ServerError& error) {
      if (!error.keeps_connection() || !connection_.roll_back()) connection_.close();
      if (error.passes()) throw Transient(error.what());
      throw;
    } catch (...) {
      connection_.close();
      throw;
    }
  }
  if (refused.empty()) return;
  std::ranges::sort(refused, {}, &Refused::row);
  std::vector<std::size_t> positions;
  positions.reserve(refused.size());
  for (const Refused& one : refused) {
    positions.push_back(static_cast<std::size_t>(one.row - in.items.data()));
  }
  throw Rejected(fmt::format("session {}: {}", to_hex(refused[0].row->session.id), refused[0].why),
                 std::move(positions));
}

/// Stores all rows in one transaction, or none and returns those that cannot be.
std::vector<SinkPostgres::Refused> SinkPostgres::store(RowWriter::Rows rows) {
  if (!connection_.is_open()) reconnect();
  Outcomes outcomes;
  if (const auto why = attempt(rows, outcomes)) {
    std::vector<Refused> refused;
    find_refused(rows, *why, refused);
    if (refused.empty()) {
      throw std::runtime_error(fmt::format("{}; every row alone is taken, though", *why));
    }
    return refused;
  }
  connection_.commit();
  stored_->add(outcomes.stored);
  labelled_->add(outcomes.labelled);
  already_stored_->add(rows.size() - outcomes.stored - outcomes.labelled -
                       outcomes.others.replaced_rows());
  others_.add(outcomes.others);
  return {};
}

/// Writes rows in a transaction and leaves it open, or returns why the values of one are refused
/// and leaves none.
std::optional<std::string> SinkPostgres::attempt(RowWriter::Rows rows, Outcomes& outcomes) {
  try {
    connection_.begin();
    outcomes = writer_.store(rows, context_->clock().now());
    return std::nullopt;
  } catch (const ServerError& error) {
    if (error.kind() != ServerError::Kind::data || !connection_.roll_back()) throw;
    return error.what();
  }
}

/// The server does not say which row it was, so halves are tried and taken back. `why` is what it
/// said of `rows`.
void SinkPostgres::find_refused(RowWriter::Rows rows, const std::string& why,
                                std::vector<Refused>& refused) {
  if (rows.size() == 1) {
    refused.push_back({rows[0], why});
    return;
  }
  const std::size_t half = rows.size() / 2;
  for (const RowWriter::Rows part : {rows.first(half), rows.subspan(half)}) {
    Outcomes outcomes;
    if (const auto again = attempt(part, outcomes)) {
      find_refused(part, *again, refused);
    } else {
      static_cast<void>(connection_.roll_back());  // one that fails shows at the next attempt
    }
  }
}

}  // namespace millrace

using namespace millrace;

MILLRACE_PLUGIN(
    "sink-postgres", MILLRACE_VERSION,
    sink<SinkPostgres, PostgresOptions>(
        "sink-postgres", "Stores sessions in a table of PostgreSQL",
        option<&PostgresOptions::server>(
            "server",
            "postgresql://user:password@host:port/database, or "
            "postgresql://user@/database?host=/folder/of/socket; the port is 5432 if it is not "
            "given, and what would be mistaken for a part of the form is written %XX")
            .required()
            .secret(),
        option<&PostgresOptions::password>("password",
                                           "the user's password, if it is not in 'server'")
            .secret(),
        option<&PostgresOptions::table>("table", "the table of the database"),
        option<&PostgresOptions::create>(
            "create",
            "makes the table and the view TABLE_readable where they are "
            "not there yet; otherwise a table that is missing is an error"),
        option<&PostgresOptions::on_existing>("on_existing", kOnExistingMeaning)
            .choices({{"keep", OnExisting::keep},
                      {"other-model", OnExisting::other_model},
                      {"replace", OnExisting::replace}}),
        option<&PostgresOptions::batch>(
            "batch",
            "rows of one transaction; until so many are together they wait in memory, not "
            "acknowledged")
            .between(1, 1000000),
        option<&PostgresOptions::max_wait>(
            "max_wait",
            "a transaction is made at the latest so long after its first row came; \"0s\": at "
            "once, of what is there")
            .at_least(Duration(0)),
        option<&PostgresOptions::wait>(
            "wait",
            "how long the start waits for a server that cannot be reached; later 'retry_for' says "
            "that")
            .between(Duration(0), std::chrono::hours(1)),
        option<&PostgresOptions::connect_timeout>("connect_timeout",
                                                  "how long one attempt to connect may take")
            .between(std::chrono::seconds(1), std::chrono::hours(1)),
        option<&PostgresOptions::read_timeout>(
            "read_timeout",
            "how long the server may take for an answer; half of it, 50 s at most, is how long it "
            "waits for rows that another has locked")
            .between(std::chrono::seconds(2), std::chrono::hours(1)),
        option<&PostgresOptions::write_timeout>("write_timeout",
                                                "how long sending to the server may be stuck")
            .between(std::chrono::seconds(1), std::chrono::hours(1)),
        option<&PostgresOptions::tls>(
            "tls",
            "off: no encryption; required: encrypted, whoever the server is; verify: the server's "
            "certificate must be from 'tls_ca' and bear the host's name")
            .choices({{"off", Tls::off}, {"required", Tls::required}, {"verify", Tls::verify}}),
        option<&PostgresOptions::tls_ca>("tls_ca", "file of the authority's certificate (PEM)"),
        option<&PostgresOptions::tls_cert>("tls_cert",
                                           "file of this client's certificate, if the server asks "
                                           "for one"),
        option<&PostgresOptions::tls_key>(
            "tls_key", "file of the key of 'tls_cert', which only its owner may read"))
        .accepts<Session>(&unlabelled)
        .checked(&SinkPostgres::check))
