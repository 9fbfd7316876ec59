#include "sink_sqlite.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <unistd.h>

#include "millrace/testing.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

Verdict verdict(std::uint8_t id, std::string_view label) {
  Verdict v;
  v.session.id[0] = id;
  v.session.key.protocol = 17;
  v.session.packets = id;
  v.label = label;
  v.model = label.empty() ? "" : "m";
  return v;
}

class SinkSqliteTest : public ::testing::Test {
 protected:
  SinkSqliteTest()
      : folder_(fs::temp_directory_path() /
                ("sink-sqlite-" + std::to_string(::getpid()) + "-" +
                 ::testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::create_directories(folder_);
    options_.path = folder_ / "s.db";
  }
  ~SinkSqliteTest() override { fs::remove_all(folder_); }
  SinkSqliteTest(const SinkSqliteTest&) = delete;
  SinkSqliteTest& operator=(const SinkSqliteTest&) = delete;

  /// What a second, real connection reads.
  std::string query(const std::string& sql) const {
    sqlite3* raw = nullptr;
    sqlite3_open(options_.path.c_str(), &raw);
    const std::unique_ptr<sqlite3, int (*)(sqlite3*)> database(raw, &sqlite3_close);
    std::string rows;
    sqlite3_exec(
        raw, sql.c_str(),
        [](void* to, int columns, char** values, char**) {
          for (int i = 0; i < columns; ++i) {
            *static_cast<std::string*>(to) +=
                std::string(values[i] != nullptr ? values[i] : "NULL") + ";";
          }
          return 0;
        },
        &rows, nullptr);
    return rows;
  }

  void store(std::vector<Verdict> verdicts) {
    testing::TestContext context;
    SinkSqlite sink(options_);
    sink.open(context);
    Batch<Verdict> batch(std::move(verdicts));
    sink.write(batch);
    sink.flush();
    sink.close();
    already_ = context.counter("already-stored").value();
  }

  fs::path folder_;
  SqliteOptions options_;
  std::uint64_t already_ = 0;
};

TEST_F(SinkSqliteTest, StoringTwiceAddsNothing) {
  store({verdict(1, "a"), verdict(2, "b")});
  store({verdict(1, "c"), verdict(2, "b")});
  EXPECT_EQ(query("SELECT substr(session,1,2), label, packets FROM sessions ORDER BY 1"),
            "01;a;1;02;b;2;");
  EXPECT_EQ(already_, 2U);
}

TEST_F(SinkSqliteTest, LaterLabelFillsAnEmptyOne) {
  store({verdict(1, "")});
  store({verdict(1, "a")});
  store({verdict(1, "")});
  EXPECT_EQ(query("SELECT label, model FROM sessions"), "a;m;");
}

TEST_F(SinkSqliteTest, SchemaIsWalWithVersionAndIndexes) {
  store({verdict(1, "a")});
  EXPECT_EQ(query("PRAGMA user_version"), "1;");
  EXPECT_EQ(query("PRAGMA journal_mode"), "wal;");
  EXPECT_EQ(query("SELECT name FROM sqlite_master WHERE type='index' AND name LIKE 'sessions_%' "
                  "ORDER BY 1"),
            "sessions_by_label;sessions_by_time;");
  EXPECT_EQ(query("SELECT first_seen FROM sessions_readable"), "1970-01-01 00:00:00;");
}

TEST_F(SinkSqliteTest, ReceiptIsResolvedAfterCommit) {
  options_.batch = 3;
  testing::TestContext context;
  SinkSqlite sink(options_);
  sink.open(context);
  testing::WatchedReceipt watched;
  Batch<Verdict> first({verdict(1, "a"), verdict(2, "a")});
  first.receipt = watched.make();
  sink.write(first);
  EXPECT_EQ(watched.pending(), 1);
  EXPECT_EQ(query("SELECT count(*) FROM sessions"), "0;");
  Batch<Verdict> second({verdict(3, "a")});
  sink.write(second);
  EXPECT_EQ(watched.done(), 1);
  EXPECT_EQ(query("SELECT count(*) FROM sessions"), "3;");
}

TEST_F(SinkSqliteTest, HeartbeatCommitsAfterMaxWait) {
  testing::TestContext context;
  SinkSqlite sink(options_);
  sink.open(context);
  Batch<Verdict> batch({verdict(1, "a")});
  sink.write(batch);
  Batch<Verdict> tick;
  sink.write(tick);
  EXPECT_EQ(query("SELECT count(*) FROM sessions"), "0;");
  context.manual_clock.advance(options_.max_wait);
  sink.write(tick);
  EXPECT_EQ(query("SELECT count(*) FROM sessions"), "1;");
}

TEST_F(SinkSqliteTest, LockedDatabaseIsTransientAndLosesNothing) {
  options_.busy_timeout = Duration(0);
  testing::TestContext context;
  SinkSqlite sink(options_);
  sink.open(context);
  sqlite3* other = nullptr;
  sqlite3_open(options_.path.c_str(), &other);
  sqlite3_exec(other, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr);
  testing::WatchedReceipt watched;
  Batch<Verdict> batch({verdict(1, "a")});
  batch.receipt = watched.make();
  EXPECT_THROW(sink.write(batch), Transient);
  EXPECT_EQ(batch.items.size(), 1U);
  sqlite3_exec(other, "ROLLBACK", nullptr, nullptr, nullptr);
  sqlite3_close(other);
  sink.write(batch);
  sink.flush();
  EXPECT_EQ(watched.done(), 1);
  EXPECT_EQ(query("SELECT count(*) FROM sessions"), "1;");
}

TEST_F(SinkSqliteTest, WhatIsNotCommittedFails) {
  testing::WatchedReceipt watched;
  {
    testing::TestContext context;
    SinkSqlite sink(options_);
    sink.open(context);
    Batch<Verdict> batch({verdict(1, "a")});
    batch.receipt = watched.make();
    sink.write(batch);
    sink.close();
  }
  EXPECT_EQ(watched.failed(), 1);
}

TEST_F(SinkSqliteTest, OtherFilesAreLeftAlone) {
  testing::TestContext context;
  std::ofstream(options_.path)
      << "this is no database, but a text that is long enough to be looked at";
  EXPECT_THROW(SinkSqlite(options_).open(context), ConfigError);
  fs::remove(options_.path);
  query("CREATE TABLE mine (x)");
  EXPECT_THROW(SinkSqlite(options_).open(context), ConfigError);
  EXPECT_EQ(query("SELECT name FROM sqlite_master"), "mine;");
  options_.path = folder_ / "missing" / "s.db";
  EXPECT_THROW(SinkSqlite(options_).open(context), ConfigError);
}

}  // namespace
}  // namespace millrace
