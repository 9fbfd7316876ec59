#include "sink_sqlite.h"

#include <stdexcept>

#include <fmt/format.h>

namespace millrace {

namespace {

constexpr std::string_view kSchemaVersion = "3";

/// The README documents it; a change raises the version. Rows come nearly in the order of their
/// times and in no order of their ids, so they lie by time: an id has only one time.
constexpr const char* kSchema = R"sql(
CREATE TABLE sessions (
  session       TEXT NOT NULL,
  agent         TEXT,
  protocol      TEXT NOT NULL,
  src           TEXT NOT NULL,
  src_port      INTEGER NOT NULL,
  dst           TEXT NOT NULL,
  dst_port      INTEGER NOT NULL,
  epoch         INTEGER,
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
  SELECT session, agent, protocol, src, src_port, dst, dst_port, epoch,
         strftime('%Y-%m-%d %H:%M:%S', first_seen / 1000000000, 'unixepoch') AS first_seen,
         strftime('%Y-%m-%d %H:%M:%S', last_seen / 1000000000, 'unixepoch') AS last_seen,
         packets, bytes, payload_bytes, reason, label, round(confidence, 4) AS confidence, model
  FROM sessions;
PRAGMA user_version = 3;
)sql";

/// Version 1 had the id as the primary key and the times in an index. Version 2 had no agent and no
/// epoch, of which the rows then say nothing (NULL).
constexpr const char* kSetAsideVersion1 = "DROP INDEX sessions_by_time";
constexpr const char* kSetAside = R"sql(
DROP VIEW sessions_readable;
DROP INDEX sessions_by_label;
ALTER TABLE sessions RENAME TO sessions_before;
)sql";
constexpr const char* kTakeOver = R"sql(
INSERT INTO sessions (session, protocol, src, src_port, dst, dst_port, first_seen, last_seen,
                      packets, bytes, payload_bytes, reason, label, confidence, model,
                      model_version)
SELECT session, protocol, src, src_port, dst, dst_port, first_seen, last_seen, packets, bytes,
       payload_bytes, reason, label, confidence, model, model_version
FROM sessions_before;
DROP TABLE sessions_before;
)sql";

constexpr const char* kInsert = R"sql(
INSERT INTO sessions (session, agent, protocol, src, src_port, dst, dst_port, epoch, first_seen,
                      last_seen, packets, bytes, payload_bytes, reason, label, confidence, model,
                      model_version)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (first_seen, session) DO NOTHING
)sql";

constexpr const char* kFind = R"sql(
SELECT label, model, model_version FROM sessions WHERE first_seen = ?1 AND session = ?2
)sql";

constexpr const char* kRelabel = R"sql(
UPDATE sessions SET label = ?3, confidence = ?4, model = ?5, model_version = ?6
WHERE first_seen = ?1 AND session = ?2
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
  others_.open(context);
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
    find_ = database_.prepare(kFind);
    relabel_ = database_.prepare(kRelabel);
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
    } else if (version == "1" || version == "2") {
      if (version == "1") database_.execute(kSetAsideVersion1);
      database_.execute(kSetAside);
      database_.execute(kSchema);
      database_.execute(kTakeOver);
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
  others_.add(outcomes.others);
}

void SinkSqlite::close() noexcept {
  insert_ = {};
  find_ = {};
  relabel_ = {};
  database_.close();
}

void SinkSqlite::store(const Verdict& verdict, Outcomes& outcomes) {
  const SessionInfo& info = verdict.session;
  const Endpoints ends = endpoints(info);
  const std::string id = to_hex(info.id);
  const auto confidence = static_cast<double>(verdict.confidence);
  int column = 0;
  insert_.bind(++column, id);
  insert_.bind(++column, info.agent);
  insert_.bind(++column, protocol_name(info.key.protocol));
  insert_.bind(++column, to_string(ends.src, info.key.family));
  insert_.bind(++column, std::int64_t{ends.src_port});
  insert_.bind(++column, to_string(ends.dst, info.key.family));
  insert_.bind(++column, std::int64_t{ends.dst_port});
  insert_.bind(++column, std::int64_t{info.epoch});
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
  add_label(id, verdict, outcomes);
}

/// To a session that has a row already.
void SinkSqlite::add_label(const std::string& id, const Verdict& verdict, Outcomes& outcomes) {
  if (verdict.label.empty()) {
    ++outcomes.already_stored;
    return;
  }
  const std::int64_t first_seen = nanoseconds(verdict.session.first_seen);
  find_.bind(1, first_seen);
  find_.bind(2, id);
  const auto row = find_.first_row().value_or(std::vector<std::string>(3));
  const StoredAnswer answer{row.at(0), row.at(1), row.at(2)};
  const bool has_label = !answer.label.empty();
  const bool other = has_label && differs(answer, verdict);
  const bool replaced = other && replaces(options_.on_existing, answer, verdict);
  if (other) outcomes.others.add(replaced, answer, verdict);
  if (has_label && !replaced) {
    ++outcomes.already_stored;
    return;
  }
  relabel_.bind(1, first_seen);
  relabel_.bind(2, id);
  relabel_.bind(3, verdict.label);
  relabel_.bind(4, static_cast<double>(verdict.confidence));
  relabel_.bind(5, verdict.model);
  relabel_.bind(6, verdict.model_version);
  static_cast<void>(relabel_.run());
  if (!has_label) ++outcomes.labelled;
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
        option<&SqliteOptions::on_existing>("on_existing", kOnExistingMeaning)
            .choices({{"keep", OnExisting::keep},
                      {"other-model", OnExisting::other_model},
                      {"replace", OnExisting::replace}}),
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
