#include "sink_sqlite.h"

#include <stdexcept>

#include <fmt/format.h>

namespace millrace {

namespace {

constexpr std::string_view kSchemaVersion = "2";

/// The README documents it; a change raises the version. Rows come nearly in the order of their
/// times and in no order of their ids, so they lie by time: an id has only one time.
constexpr const char* kSchema = R"sql(
CREATE TABLE sessions (
  session       TEXT NOT NULL,
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
  confidence    REAL,
  model         TEXT NOT NULL,
  model_version TEXT NOT NULL,
  PRIMARY KEY (first_seen, session)
) WITHOUT ROWID;
CREATE INDEX sessions_by_label ON sessions (label, first_seen);
CREATE VIEW sessions_readable AS
  SELECT session, protocol, src, src_port, dst, dst_port,
         strftime('%Y-%m-%d %H:%M:%S', first_seen / 1000000000, 'unixepoch') AS first_seen,
         strftime('%Y-%m-%d %H:%M:%S', last_seen / 1000000000, 'unixepoch') AS last_seen,
         packets, bytes, payload_bytes, reason, label, round(confidence, 4) AS confidence, model
  FROM sessions;
PRAGMA user_version = 2;
)sql";

/// Version 1 had the same columns, with the id as the primary key and the times in an index.
constexpr const char* kSetAsideVersion1 = R"sql(
DROP VIEW sessions_readable;
DROP INDEX sessions_by_time;
DROP INDEX sessions_by_label;
ALTER TABLE sessions RENAME TO sessions_1;
)sql";
constexpr const char* kTakeOverVersion1 = R"sql(
INSERT INTO sessions SELECT * FROM sessions_1;
DROP TABLE sessions_1;
)sql";

constexpr const char* kInsert = R"sql(
INSERT INTO sessions (session, protocol, src, src_port, dst, dst_port, first_seen, last_seen,
                      packets, bytes, payload_bytes, reason, label, confidence, model,
                      model_version)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (first_seen, session) DO NOTHING
)sql";

/// What a run with a model adds to a session that an earlier run without one has stored.
constexpr const char* kFillIn = R"sql(
UPDATE sessions SET label = ?2, confidence = ?3, model = ?4, model_version = ?5
WHERE first_seen = ?6 AND session = ?1 AND label = ''
)sql";

std::int64_t nanoseconds(Timestamp time) { return time.time_since_epoch().count(); }

}  // namespace

void SinkSqlite::check(const SqliteOptions& options, Findings& findings) {
  // SQLite gives these two a meaning that stores nothing.
  if (options.path.empty() || options.path == ":memory:") {
    findings.add("path", "expected the name of a database file");
  }
}

void SinkSqlite::open(Context& context) {
  context_ = &context;
  stored_ = &context.counter("stored");
  labelled_ = &context.counter("labelled");
  already_stored_ = &context.counter("already-stored");
  database_.open(options_.path, options_.busy_timeout);
  try {
    open_schema();
    if (const std::string mode = database_.value("PRAGMA journal_mode = WAL"); mode != "wal") {
      context.warning(fmt::format(
          "'{}' has no write-ahead log here (journal mode {}): readers and this stage wait for "
          "each other",
          options_.path, mode));
    }
    database_.execute(options_.synchronous == Synchronous::full ? "PRAGMA synchronous = FULL"
                                                                : "PRAGMA synchronous = NORMAL");
    insert_ = database_.prepare(kInsert);
    fill_in_ = database_.prepare(kFillIn);
  } catch (const Transient&) {
    throw;  // locked, say: the option is right
  } catch (const ConfigError&) {
    throw;
  } catch (const std::exception& error) {
    throw ConfigError("path",
                      fmt::format("{}; expected a database of this stage (schema version {}), or a "
                                  "file that is not there yet",
                                  error.what(), kSchemaVersion));
  }
}

/// Makes the tables of an empty database; refuses one that is somebody else's.
void SinkSqlite::open_schema() {
  if (database_.value("PRAGMA user_version") == kSchemaVersion) return;
  // Two that start together must not both make the tables: it is asked again under the lock.
  database_.execute("BEGIN IMMEDIATE");
  try {
    const std::string version = database_.value("PRAGMA user_version");
    const std::string tables =
        database_.value("SELECT count(*) FROM sqlite_master WHERE type = 'table'");
    if (version == "0" && tables == "0") {
      database_.execute(kSchema);
    } else if (version == "1") {
      database_.execute(kSetAsideVersion1);
      database_.execute(kSchema);
      database_.execute(kTakeOverVersion1);
    } else if (version != kSchemaVersion) {
      throw ConfigError(
          "path", fmt::format("'{}' is another database: schema version {}, {} tables; expected "
                              "one of this stage (schema version {}), or a file that is not there "
                              "yet",
                              options_.path, version, tables, kSchemaVersion));
    }
    database_.execute("COMMIT");
  } catch (...) {
    database_.roll_back();
    throw;
  }
}

void SinkSqlite::write(Batch<Verdict>& in) {
  if (in.items.empty()) return;
  Outcomes outcomes;
  try {
    database_.execute("BEGIN IMMEDIATE");
    for (const Verdict& verdict : in.items) store(verdict, outcomes);
    database_.execute("COMMIT");
  } catch (...) {
    database_.roll_back();
    throw;
  }
  stored_->add(outcomes.stored);
  labelled_->add(outcomes.labelled);
  already_stored_->add(outcomes.already_stored);
}

void SinkSqlite::close() noexcept {
  insert_ = {};
  fill_in_ = {};
  database_.close();
}

void SinkSqlite::store(const Verdict& verdict, Outcomes& outcomes) {
  const SessionInfo& info = verdict.session;
  const Endpoints ends = endpoints(info);
  const std::string id = to_hex(info.id);
  const auto confidence = static_cast<double>(verdict.confidence);
  int column = 0;
  insert_.bind(++column, id);
  insert_.bind(++column, protocol_name(info.key.protocol));
  insert_.bind(++column, to_string(ends.src, info.key.family));
  insert_.bind(++column, std::int64_t{ends.src_port});
  insert_.bind(++column, to_string(ends.dst, info.key.family));
  insert_.bind(++column, std::int64_t{ends.dst_port});
  insert_.bind(++column, nanoseconds(info.first_seen));
  insert_.bind(++column, nanoseconds(info.last_seen));
  insert_.bind(++column, std::int64_t{info.packets});
  insert_.bind(++column, static_cast<std::int64_t>(info.bytes));
  insert_.bind(++column, static_cast<std::int64_t>(info.payload_bytes));
  insert_.bind(++column, to_string(info.due));
  insert_.bind(++column, verdict.label);
  insert_.bind(++column, confidence);
  insert_.bind(++column, verdict.model);
  insert_.bind(++column, verdict.model_version);
  if (insert_.run() != 0) {
    ++outcomes.stored;
    return;
  }
  if (!verdict.label.empty()) {
    fill_in_.bind(1, id);
    fill_in_.bind(2, verdict.label);
    fill_in_.bind(3, confidence);
    fill_in_.bind(4, verdict.model);
    fill_in_.bind(5, verdict.model_version);
    fill_in_.bind(6, nanoseconds(info.first_seen));
    if (fill_in_.run() != 0) {
      ++outcomes.labelled;
      return;
    }
  }
  ++outcomes.already_stored;
}

}  // namespace millrace

using namespace millrace;

MILLRACE_PLUGIN(
    "sink-sqlite", MILLRACE_VERSION,
    sink<SinkSqlite, SqliteOptions>(
        "sink-sqlite", "Stores sessions in an SQLite database",
        option<&SqliteOptions::path>(
            "path",
            "the database file, made if it is not there (its folder must be); one that "
            "this stage has not made is refused")
            .required(),
        option<&SqliteOptions::batch>(
            "batch",
            "rows of one transaction; until so many are together they wait in memory, not "
            "acknowledged")
            .between(1, 1000000),
        option<&SqliteOptions::max_wait>(
            "max_wait",
            "a transaction is made at the latest so long after its first row came; \"0s\": at "
            "once, of what is there")
            .at_least(Duration(0)),
        option<&SqliteOptions::busy_timeout>(
            "busy_timeout",
            "how long one attempt waits for another program that has locked the database; "
            "then it is tried again, as long as 'retry_for' says")
            .between(Duration(0), std::chrono::minutes(1)),
        option<&SqliteOptions::synchronous>(
            "synchronous",
            "normal: a power cut may undo the last transactions although they were "
            "acknowledged, but never damages the database; full: what is acknowledged survives "
            "it, at the price of one disk flush a transaction. A crash of the program loses "
            "nothing with either")
            .choices({{"normal", Synchronous::normal}, {"full", Synchronous::full}}))
        .accepts<Session>(&unlabelled)
        .checked(&SinkSqlite::check)
        .single("a database takes one transaction at a time"))
