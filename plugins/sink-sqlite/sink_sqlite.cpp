#include "sink_sqlite.h"

#include <chrono>
#include <filesystem>

#include <fmt/format.h>
#include <sqlite3.h>

#include "millrace/plugin.h"

namespace millrace {

namespace {

constexpr int kSchemaVersion = 1;

/// The README documents it; a change raises kSchemaVersion.
constexpr const char* kSchema = R"sql(
CREATE TABLE sessions (
  session       TEXT PRIMARY KEY NOT NULL,
  protocol      TEXT NOT NULL,
  src           TEXT NOT NULL,
  src_port      INTEGER NOT NULL,
  dst           TEXT NOT NULL,
  dst_port      INTEGER NOT NULL,
  first_seen    INTEGER NOT NULL,
  last_seen     INTEGER NOT NULL,
  packets       INTEGER NOT NULL,
  bytes         INTEGER NOT NULL,
  payload_bytes INTEGER NOT NULL,
  reason        TEXT NOT NULL,
  label         TEXT NOT NULL,
  confidence    REAL NOT NULL,
  model         TEXT NOT NULL,
  model_version TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX sessions_by_time ON sessions (first_seen);
CREATE INDEX sessions_by_label ON sessions (label, first_seen);
CREATE VIEW sessions_readable AS
  SELECT session, protocol, src, src_port, dst, dst_port,
         strftime('%Y-%m-%d %H:%M:%S', first_seen / 1000000000, 'unixepoch') AS first_seen,
         strftime('%Y-%m-%d %H:%M:%S', last_seen / 1000000000, 'unixepoch') AS last_seen,
         packets, bytes, payload_bytes, reason, label, round(confidence, 4) AS confidence, model
  FROM sessions;
PRAGMA user_version = 1;
)sql";

/// A row that is there stays as it is, unless it has no label yet and this one has.
constexpr const char* kInsert = R"sql(
INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (session) DO UPDATE SET label = excluded.label, confidence = excluded.confidence,
  model = excluded.model, model_version = excluded.model_version
  WHERE sessions.label = '' AND excluded.label <> ''
)sql";

void bind_text(sqlite3_stmt* statement, int column, std::string_view text) {
  if (text.empty()) text = "";  // a view of nothing would be NULL
  sqlite3_bind_text(statement, column, text.data(), static_cast<int>(text.size()),
                    SQLITE_TRANSIENT);
}

std::int64_t nanoseconds(Timestamp time) { return time.time_since_epoch().count(); }

}  // namespace

void SinkSqlite::CloseDatabase::operator()(sqlite3* database) const { sqlite3_close(database); }
void SinkSqlite::Finalize::operator()(sqlite3_stmt* statement) const {
  sqlite3_finalize(statement);
}

void SinkSqlite::open(Context& context) {
  context_ = &context;
  stored_ = &context.counter("stored");
  already_ = &context.counter("already-stored");
  const std::filesystem::path folder = std::filesystem::path(options_.path).parent_path();
  if (!folder.empty() && !std::filesystem::is_directory(folder)) {
    throw ConfigError("path", fmt::format("the folder '{}' does not exist", folder.string()));
  }
  sqlite3* raw = nullptr;
  const int code =
      sqlite3_open_v2(options_.path.c_str(), &raw,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  database_.reset(raw);
  if (code != SQLITE_OK) {
    throw ConfigError("path",
                      fmt::format("cannot open '{}': {}", options_.path, sqlite3_errstr(code)));
  }
  sqlite3_extended_result_codes(raw, 1);
  const auto timeout = std::chrono::duration_cast<std::chrono::milliseconds>(options_.busy_timeout);
  sqlite3_busy_timeout(raw, static_cast<int>(timeout.count()));
  try {
    check_version();
    execute("PRAGMA journal_mode = WAL");
    execute(options_.synchronous == Synchronous::full ? "PRAGMA synchronous = FULL"
                                                      : "PRAGMA synchronous = NORMAL");
    sqlite3_stmt* statement = nullptr;
    if (const int prepared = sqlite3_prepare_v2(raw, kInsert, -1, &statement, nullptr);
        prepared != SQLITE_OK) {
      fail(prepared, "prepare the insert");
    }
    insert_.reset(statement);
  } catch (const ConfigError&) {
    throw;
  } catch (const std::exception& error) {
    throw ConfigError("path", error.what());
  }
}

void SinkSqlite::check_version() {
  int version = 0;
  int tables = 0;
  const auto number = [](void* to, int, char** values, char**) {
    *static_cast<int*>(to) = values[0] != nullptr ? std::atoi(values[0]) : 0;
    return 0;
  };
  if (const int code =
          sqlite3_exec(database_.get(), "PRAGMA user_version", number, &version, nullptr);
      code != SQLITE_OK) {
    fail(code, "read");
  }
  sqlite3_exec(database_.get(), "SELECT count(*) FROM sqlite_master", number, &tables, nullptr);
  if (version == kSchemaVersion) return;
  if (version == 0 && tables == 0) {
    execute("BEGIN IMMEDIATE");
    open_transaction_ = true;
    try {
      execute(kSchema);
      execute("COMMIT");
      open_transaction_ = false;
    } catch (...) {
      roll_back();
      throw;
    }
    return;
  }
  throw ConfigError(
      "path",
      fmt::format("'{}' is a database of something else (schema version {}, {} tables); expected "
                  "one of this sink with version {}, or a new file",
                  options_.path, version, tables, kSchemaVersion));
}

void SinkSqlite::execute(const char* sql) {
  if (const int code = sqlite3_exec(database_.get(), sql, nullptr, nullptr, nullptr);
      code != SQLITE_OK) {
    fail(code, "write");
  }
}

/// What passes is Transient, after giving the transaction back.
void SinkSqlite::fail(int code, const std::string& doing) {
  const std::string what =
      fmt::format("cannot {} '{}': {}", doing, options_.path, sqlite3_errmsg(database_.get()));
  switch (code & 0xFF) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_FULL:
    case SQLITE_IOERR:
      throw Transient(what);
    default:
      throw std::runtime_error(what);
  }
}

void SinkSqlite::insert(const Verdict& verdict) {
  sqlite3_stmt* statement = insert_.get();
  const SessionInfo& info = verdict.session;
  const Endpoints ends = endpoints(info);
  bind_text(statement, 1, to_hex(info.id));
  bind_text(statement, 2, protocol_name(info.key.protocol));
  bind_text(statement, 3, to_string(ends.src, info.key.family));
  sqlite3_bind_int(statement, 4, ends.src_port);
  bind_text(statement, 5, to_string(ends.dst, info.key.family));
  sqlite3_bind_int(statement, 6, ends.dst_port);
  sqlite3_bind_int64(statement, 7, nanoseconds(info.first_seen));
  sqlite3_bind_int64(statement, 8, nanoseconds(info.last_seen));
  sqlite3_bind_int64(statement, 9, info.packets);
  sqlite3_bind_int64(statement, 10, static_cast<std::int64_t>(info.bytes));
  sqlite3_bind_int64(statement, 11, static_cast<std::int64_t>(info.payload_bytes));
  bind_text(statement, 12, to_string(info.due));
  bind_text(statement, 13, verdict.label);
  sqlite3_bind_double(statement, 14, static_cast<double>(verdict.confidence));
  bind_text(statement, 15, verdict.model);
  bind_text(statement, 16, verdict.model_version);
  const int code = sqlite3_step(statement);
  sqlite3_reset(statement);
  if (code != SQLITE_DONE) fail(code, "insert into");
  ++(sqlite3_changes(database_.get()) != 0 ? new_rows_ : old_rows_);
}

void SinkSqlite::write(Batch<Verdict>& in) {
  const Timestamp now = context_->clock().now();
  try {
    if (!open_transaction_ && (!waiting_.empty() || !in.items.empty())) {
      execute("BEGIN IMMEDIATE");
      open_transaction_ = true;
      // Rows of a transaction that was lost are written once more.
      for (const auto& batch : waiting_) {
        for (const Verdict& verdict : batch.items) insert(verdict);
      }
    }
    for (const Verdict& verdict : in.items) insert(verdict);
    const std::size_t rows = waiting_rows_ + in.items.size();
    const bool due = rows >= options_.batch ||
                     (first_waits_since_ && now - *first_waits_since_ >= options_.max_wait);
    if (due) commit();
    if (in.items.empty()) return;
    if (due) return;  // committed: the host resolves the receipt
    if (!first_waits_since_) first_waits_since_ = now;
    waiting_rows_ = rows;
    waiting_.push_back(std::move(in));
  } catch (...) {
    roll_back();
    throw;
  }
}

void SinkSqlite::commit() {
  if (!open_transaction_) return;
  execute("COMMIT");
  open_transaction_ = false;
  stored_->add(new_rows_);
  already_->add(old_rows_);
  for (Batch<Verdict>& batch : waiting_) batch.receipt.done();
  waiting_.clear();
  waiting_rows_ = 0;
  new_rows_ = 0;
  old_rows_ = 0;
  first_waits_since_.reset();
}

void SinkSqlite::roll_back() noexcept {
  if (!std::exchange(open_transaction_, false)) return;
  // After a full disk SQLite may have rolled back by itself; then this has nothing to do.
  sqlite3_exec(database_.get(), "ROLLBACK", nullptr, nullptr, nullptr);
  new_rows_ = 0;
  old_rows_ = 0;
}

void SinkSqlite::flush() {
  Batch<Verdict> nothing;
  if (!waiting_.empty()) {
    write(nothing);
    try {
      commit();
    } catch (...) {
      roll_back();
      throw;
    }
  }
}

void SinkSqlite::close() noexcept {
  roll_back();
  insert_.reset();
  if (database_)
    sqlite3_wal_checkpoint_v2(database_.get(), nullptr, SQLITE_CHECKPOINT_TRUNCATE, nullptr,
                              nullptr);
  database_.reset();
}

}  // namespace millrace

using namespace millrace;

MILLRACE_PLUGIN(
    "sink-sqlite", MILLRACE_VERSION,
    sink<SinkSqlite, SqliteOptions>(
        "sink-sqlite", "Stores sessions in an SQLite database",
        option<&SqliteOptions::path>("path", "the database; made if it is not there").required(),
        option<&SqliteOptions::batch>("batch", "rows of one transaction").between(1, 1000000),
        option<&SqliteOptions::max_wait>("max_wait",
                                         "a row is committed at the latest so long after it came")
            .at_least(Duration(0)),
        option<&SqliteOptions::busy_timeout>("busy_timeout",
                                             "how long one attempt waits for another program that "
                                             "has locked the database")
            .between(Duration(0), std::chrono::minutes(1)),
        option<&SqliteOptions::synchronous>(
            "synchronous",
            "normal: a power cut may undo the last commits, never damage "
            "the database; full: what is committed survives it")
            .choices({{"normal", Synchronous::normal}, {"full", Synchronous::full}}))
        .accepts<Session>(&unlabelled)
        .single("is the one writer of its database"))
