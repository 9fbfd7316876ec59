#include "sink_sqlite.h"

#include <fstream>
#include <limits>

#include <sys/wait.h>

#include "sqlite_fixture.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using testing::Driven;
using ::testing::HasSubstr;

TEST_F(SinkSqliteTest, RowHoldsEveryField) {
  Verdict v = verdict(0xAB, "a 'quoted' label");
  v.session.key.family = 6;
  v.session.key.low[15] = 1;
  v.session.key.high[15] = 2;
  v.session.key.low_port = 80;
  v.session.key.high_port = 65535;
  v.session.src_is_low = false;
  v.session.due = Due::timeout;
  v.session.agent = "probe 1";
  v.session.epoch = 4294967295;
  v.session.packets = 3;
  v.session.bytes = 5'000'000'000;
  v.session.payload_bytes = 4'000'000'000;
  v.session.first_seen = Timestamp(std::chrono::nanoseconds(1462356672123456789));
  v.session.last_seen = Timestamp(std::chrono::nanoseconds(1462356673123456789));
  run({v});
  EXPECT_EQ(query("SELECT * FROM sessions"),
            "ab000000000000000000000000000000;probe 1;udp;::2;65535;::1;80;4294967295;"
            "1462356672123456789;1462356673123456789;3;5000000000;4000000000;timeout;a 'quoted' "
            "label;0.5;m;7;");
  EXPECT_EQ(query("SELECT agent, epoch, first_seen, last_seen, confidence FROM "
                  "sessions_readable"),
            "probe 1;4294967295;2016-05-04 10:11:12;2016-05-04 10:11:13;0.5;");
  EXPECT_EQ(query("SELECT DISTINCT typeof(first_seen), typeof(src_port), typeof(session) FROM "
                  "sessions"),
            "integer;integer;text;");
}

TEST_F(SinkSqliteTest, SchemaIsWalWithVersionAndIndexes) {
  run({verdict(1, "a")});
  EXPECT_EQ(query("PRAGMA user_version"), "3;");
  EXPECT_EQ(query("PRAGMA journal_mode"), "wal;");
  EXPECT_EQ(query("SELECT name FROM sqlite_master WHERE type='index' AND name LIKE 'sessions_%' "
                  "ORDER BY 1"),
            "sessions_by_label;");
  EXPECT_EQ(query("PRAGMA integrity_check"), "ok;");
}

TEST_F(SinkSqliteTest, IndexesServeTheQueriesTheyAreFor) {
  run({verdict(1, "a")});
  EXPECT_THAT(query("EXPLAIN QUERY PLAN SELECT * FROM sessions WHERE first_seen > 5"),
              HasSubstr("USING PRIMARY KEY (first_seen>?)"));
  EXPECT_THAT(query("EXPLAIN QUERY PLAN SELECT * FROM sessions WHERE label = 'a'"),
              HasSubstr("sessions_by_label"));
}

TEST_F(SinkSqliteTest, StoringTwiceAddsNothing) {
  run({verdict(1, "a"), verdict(2, "b")});
  run({verdict(1, "c"), verdict(2, "b")});  // the same model
  EXPECT_EQ(query("SELECT substr(session,1,2), label, packets FROM sessions ORDER BY 1"),
            "01;a;1;02;b;2;");
  EXPECT_EQ(count("stored"), 2U);
  EXPECT_EQ(count("already-stored"), 2U);
  EXPECT_EQ(count("labelled"), 0U);
}

TEST_F(SinkSqliteTest, SessionTwiceInOneTransactionIsOneRow) {
  run({verdict(1, "a"), verdict(1, "a")});
  EXPECT_EQ(query("SELECT count(*) FROM sessions"), "1;");
  EXPECT_EQ(count("stored"), 1U);
  EXPECT_EQ(count("already-stored"), 1U);
}

TEST_F(SinkSqliteTest, LaterLabelFillsAnEmptyOne) {
  run({verdict(1, "")});
  EXPECT_EQ(query("SELECT label, confidence, model FROM sessions"), ";0.0;;");
  run({verdict(1, "a")});
  EXPECT_EQ(count("labelled"), 1U);
  run({verdict(1, "")});
  EXPECT_EQ(count("already-stored"), 1U);
  EXPECT_EQ(query("SELECT label, confidence, model, model_version FROM sessions"), "a;0.5;m;7;");
}

TEST_F(SinkSqliteTest, ConfidenceThatIsNoNumberIsNull) {
  Verdict v = verdict(1, "a");
  v.confidence = std::numeric_limits<float>::quiet_NaN();
  run({v});
  EXPECT_EQ(query("SELECT confidence FROM sessions"), "NULL;");
}

/// The rows' labels, models' versions and how many, and the warnings.
#define EXPECT_ROWS(rows) \
  EXPECT_EQ(query("SELECT label, model_version, count(*) FROM sessions GROUP BY 1, 2"), rows)

TEST_F(SinkSqliteTest, LabelOfAnotherModelReplacesTheOldOne) {
  run(verdicts(1, 600, "a"));
  std::vector<Verdict> anew = verdicts(1, 601, "b");
  for (Verdict& v : anew) v.model_version = "8";
  run(anew);
  EXPECT_ROWS("b;8;601;");
  EXPECT_EQ(count("relabelled"), 600U);
  EXPECT_THAT(warnings(), AllOf(HasSubstr("600 sessions had a label of the model 'm' version '7': "
                                          "now that of the model 'm' version '8'"),
                                HasSubstr("on_existing = \"keep\"")));
  // Delivered again: nothing changes, and nothing is said.
  const std::string said = warnings();
  run(anew);
  run(verdicts(1, 601, ""));
  EXPECT_ROWS("b;8;601;");
  EXPECT_EQ(count("stored"), 601U);
  EXPECT_EQ(count("relabelled"), 600U);
  EXPECT_EQ(count("already-stored"), 1202U);
  EXPECT_EQ(count("other-label"), 0U);
  EXPECT_EQ(warnings(), said);
}

TEST_F(SinkSqliteTest, LabelOfAnotherModelCanBeLeftOut) {
  options_.on_existing = OnExisting::keep;
  run(verdicts(1, 20, "a"));
  std::vector<Verdict> anew = verdicts(1, 20, "b");
  for (Verdict& v : anew) v.model = "n";
  run(anew);
  EXPECT_ROWS("a;7;20;");
  EXPECT_EQ(count("other-label"), 20U);
  EXPECT_EQ(count("already-stored"), 20U);
  EXPECT_THAT(warnings(),
              AllOf(HasSubstr("20 sessions already had a label of the model 'm' version "
                              "'7', which stays; that of the model 'n' version '7'"),
                    HasSubstr("on_existing = \"replace\"")));
}

TEST_F(SinkSqliteTest, OtherLabelOfAModelThatCallsItselfTheSame) {
  run(verdicts(1, 20, "a"));
  run(verdicts(1, 20, "b"));
  EXPECT_ROWS("a;7;20;");
  EXPECT_THAT(warnings(), AllOf(HasSubstr("20 sessions already had another label of the model 'm' "
                                          "version '7', which stays"),
                                HasSubstr("another version in its card")));
  options_.on_existing = OnExisting::replace;
  run(verdicts(1, 20, "b"));
  EXPECT_ROWS("b;7;20;");
  EXPECT_EQ(count("relabelled"), 20U);
}

TEST_F(SinkSqliteTest, BatchesAreJoinedByTheHost) {
  options_.batch = 7;
  options_.max_wait = std::chrono::minutes(3);
  const SinkSqlite sink(options_);
  EXPECT_EQ(sink.coalesce().items, 7U);
  EXPECT_EQ(sink.coalesce().max_wait, std::chrono::minutes(3));
}

TEST_F(SinkSqliteTest, EveryCallIsATransactionAndLocksNobodyOutAfterwards) {
  Driven<SinkSqlite> sink(context_, options_);
  sink.write({verdict(1, "a")});
  EXPECT_EQ(sink.receipts.done(), 1);
  EXPECT_EQ(query("SELECT count(*) FROM sessions"), "1;");
  EXPECT_EQ(query("BEGIN IMMEDIATE; COMMIT"), "");
  sink.advance();
  EXPECT_EQ(query("BEGIN IMMEDIATE; COMMIT"), "");
}

TEST_F(SinkSqliteTest, LockedDatabaseIsTransientAndLosesNothing) {
  options_.busy_timeout = Duration(0);
  Driven<SinkSqlite> sink(context_, options_);
  Other other(options_.path);
  ASSERT_EQ(other.query("BEGIN IMMEDIATE"), "");
  for (int attempt = 0; attempt < 3; ++attempt) {
    try {
      attempt == 0 ? sink.write({verdict(1, "a"), verdict(2, "a")}) : sink.retry();
      FAIL() << "the database is locked";
    } catch (const Transient& error) {
      EXPECT_THAT(error.what(), AllOf(HasSubstr(options_.path), HasSubstr("locked")));
    }
  }
  EXPECT_EQ(sink.receipts.pending(), 1);
  ASSERT_EQ(other.query("ROLLBACK"), "");
  sink.retry();
  EXPECT_EQ(sink.receipts.done(), 1);
  EXPECT_EQ(query("SELECT count(*) FROM sessions"), "2;");
  EXPECT_EQ(count("stored"), 2U);
  EXPECT_EQ(count("already-stored"), 0U);
}

/// While it lives, connections that are opened have room for a few pages only, which is what a full
/// disk is to SQLite.
class FullDisk {
 public:
  FullDisk() { sqlite3_auto_extension(entry()); }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;
  ~FullDisk() { sqlite3_cancel_auto_extension(entry()); }
  /// Of the connection opened last.
  static void make_room() {
    sqlite3_exec(limited, "PRAGMA max_page_count = 100000", nullptr, nullptr, nullptr);
  }

 private:
  using Entry = void (*)();
  static int limit(sqlite3* connection, char** /*message*/, const void* /*routines*/) {
    limited = connection;
    return sqlite3_exec(connection, "PRAGMA max_page_count = 8", nullptr, nullptr, nullptr);
  }
  static Entry entry() { return reinterpret_cast<Entry>(&limit); }
  static inline sqlite3* limited = nullptr;
};

TEST_F(SinkSqliteTest, FullDiskIsTransientAndLosesNothing) {
  std::vector<Verdict> rows;
  for (int i = 0; i < 500; ++i) {
    rows.push_back(verdict(static_cast<std::uint8_t>(i % 250), "a"));
    rows.back().session.id[1] = static_cast<std::uint8_t>(i / 250);
  }
  const FullDisk disk;
  Driven<SinkSqlite> sink(context_, options_);
  try {
    sink.write(rows);
    FAIL() << "the disk is full";
  } catch (const Transient& error) {
    EXPECT_THAT(error.what(), HasSubstr("full"));
  }
  EXPECT_EQ(sink.receipts.pending(), 1);
  FullDisk::make_room();
  sink.retry();
  EXPECT_EQ(sink.receipts.done(), 1);
  EXPECT_EQ(count("stored"), 500U);
  sink.close();
  EXPECT_EQ(query("SELECT count(*) FROM sessions"), "500;");
}

TEST_F(SinkSqliteTest, DamagedDatabaseIsFatal) {
  run({verdict(1, "a")});
  {
    std::fstream file(options_.path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(4096);
    file << std::string(4096, '\xFF');
  }
  Driven<SinkSqlite> sink(context_, options_);
  std::string message;
  try {
    sink.write({verdict(2, "a")});
  } catch (const Transient&) {
    message = "transient";
  } catch (const std::runtime_error& error) {
    message = error.what();
  }
  EXPECT_THAT(message, AllOf(HasSubstr(options_.path), HasSubstr("malformed")));
  EXPECT_EQ(sink.receipts.pending(), 1);
}

TEST_F(SinkSqliteTest, AcknowledgedRowsSurviveACrash) {
  const pid_t child = ::fork();
  if (child == 0) {
    Driven<SinkSqlite> sink(context_, options_);
    sink.write({verdict(1, "a"), verdict(2, "a")});
    ::_exit(sink.receipts.done() == 1 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  EXPECT_EQ(query("SELECT substr(session,1,2) FROM sessions ORDER BY 1"), "01;02;");
  run({verdict(2, "a"), verdict(3, "a")});
  EXPECT_EQ(query("SELECT count(*) FROM sessions"), "3;");
}

TEST_F(SinkSqliteTest, CloseLeavesOneFile) {
  run({verdict(1, "a")});
  EXPECT_TRUE(fs::exists(options_.path));
  EXPECT_FALSE(fs::exists(options_.path + "-wal"));
  EXPECT_FALSE(fs::exists(options_.path + "-shm"));
}

}  // namespace
}  // namespace millrace
