#include "sink_mysql.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "server_options.h"

namespace millrace {

namespace {

/// Room for one row with texts as long as a table of this stage allows, and the message's head.
constexpr std::size_t kLeastPacket = 16384;

}  // namespace

void SinkMysql::check(const MysqlOptions& options, Findings& findings) {
  check_server_options(server_options(options), findings);
  constexpr std::size_t kLongest = 55;  // with "_readable" no more than the server's 64
  check_table_name(options.table, kLongest, findings);
}

void SinkMysql::open(Context& context) {
  context_ = &context;
  stored_ = &context.counter("stored");
  labelled_ = &context.counter("labelled");
  already_stored_ = &context.counter("already-stored");
  reconnected_ = &context.counter("reconnected");
  others_.open(context);
  server_ = connection_options(server_options(options_));
  server_.connect_timeout = options_.connect_timeout;
  server_.read_timeout = options_.read_timeout;
  server_.write_timeout = options_.write_timeout;
  connect_first(context, server_options(options_), options_.wait, [this] { connect(); });
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

void SinkMysql::write(Batch<Verdict>& in) {
  if (in.items.empty()) return;
  reject_unfit(in);
  std::vector<const Verdict*> rows;
  rows.reserve(in.items.size());
  for (const Verdict& verdict : in.items) rows.push_back(&verdict);
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
  stored_->add(outcomes.stored);
  labelled_->add(outcomes.labelled);
  already_stored_->add(rows.size() - outcomes.stored - outcomes.labelled -
                       outcomes.others.replaced_rows());
  others_.add(outcomes.others);
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
        option<&MysqlOptions::on_existing>("on_existing", kOnExistingMeaning)
            .choices({{"keep", OnExisting::keep},
                      {"other-model", OnExisting::other_model},
                      {"replace", OnExisting::replace}}),
        option<&MysqlOptions::batch>(
            "batch",
            "rows of one transaction; until so many are together they wait in memory, not "
            "acknowledged")
            .between(1, 1000000),
        option<&MysqlOptions::max_wait>(
            "max_wait",
            "a transaction is made at the latest so long after its first row came; \"0s\": at "
            "once, of what is there")
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
