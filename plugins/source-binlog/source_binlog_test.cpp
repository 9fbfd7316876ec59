#include "binlog_fixture.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

using SourceBinlogTest = BinlogTest;
using Kind = Change::Kind;
using Row = Change::Row;

/// What a change says, on one line: "u 1 a -> 1 b".
std::string told(const Change& change) {
  const auto values = [](const Row& row) {
    std::string text;
    for (const auto& [name, value] : row) text += " " + value.value_or("NULL");
    return text;
  };
  const char* kinds[] = {"i", "u", "d"};
  return kinds[static_cast<int>(change.kind)] + values(change.before) +
         (change.kind == Kind::updated ? " ->" : "") + values(change.after);
}

std::vector<std::string> all_told(const Collector& out) {
  std::vector<std::string> lines;
  for (const Change& change : out.changes()) lines.push_back(told(change));
  return lines;
}

TEST_F(SourceBinlogTest, GivesRowsBeforeAndAfterInTheirOrder) {
  make_table();
  RunningSource source(options_, out_);
  execute({"INSERT INTO t VALUES (1, 'a'), (2, NULL)", "UPDATE t SET a = 'b'",
           "UPDATE t SET id = 3 WHERE id = 2", "REPLACE INTO t VALUES (1, 'c')",
           "UPDATE t SET a = a", "DELETE FROM t"});
  ASSERT_TRUE(eventually([&] { return out_.count() >= 8; }));
  EXPECT_THAT(all_told(out_), ElementsAre("i 1 a", "i 2 NULL", "u 1 a -> 1 b", "u 2 NULL -> 2 b",
                                          "u 2 b -> 3 b", "u 1 b -> 1 c", "d 1 c", "d 3 b"));
  const Change first = out_.changes()[0];
  EXPECT_EQ(first.database, database_);
  EXPECT_EQ(first.table, "t");
  EXPECT_THAT(first.after, ElementsAre(Row::value_type("id", "1"), Row::value_type("a", "a")));
  EXPECT_THAT(first.before, IsEmpty());
  EXPECT_THAT(out_.changes()[6].after, IsEmpty());
}

TEST_F(SourceBinlogTest, TransactionsComeWholeAndRolledBackOnesDoNot) {
  make_table();
  execute({"CREATE TABLE plain (id INT, a VARCHAR(20)) ENGINE = MyISAM"});
  options_.tables.push_back(table("plain"));
  RunningSource source(options_, out_);
  in_one_transaction({"INSERT INTO t VALUES (1, 'a')", "ROLLBACK", "INSERT INTO t VALUES (2, 'b')",
                      "SAVEPOINT s", "INSERT INTO t VALUES (3, 'c')", "ROLLBACK TO s",
                      "INSERT INTO t VALUES (4, 'd')"});
  execute({"INSERT INTO plain VALUES (5, 'e')"});
  ASSERT_TRUE(eventually([&] { return out_.count() >= 3; }));
  EXPECT_THAT(all_told(out_), ElementsAre("i 2 b", "i 4 d", "i 5 e"));
  EXPECT_TRUE(eventually([&] { return state() == end_of_log(); }));
}

TEST_F(SourceBinlogTest, ALargeTransactionComesInParts) {
  make_table();
  options_.batch = 100;
  RunningSource source(options_, out_);
  out_.set(Collector::Receipts::hold);
  const std::string before = state();
  execute({"INSERT INTO t SELECT seq, REPEAT('x', 20) FROM seq_1_to_5000"});
  ASSERT_TRUE(eventually([&] { return out_.count() >= 5000; }));
  EXPECT_EQ(out_.seen(), ids(1, 5000));
  EXPECT_GE(out_.held(), 5U);
  // All but the last: the transaction is not delivered.
  for (std::size_t i = 0; i + 1 < out_.held(); ++i) out_.resolve(i, Outcome::done);
  const std::size_t beats = out_.empty_batches();
  ASSERT_TRUE(eventually([&] { return out_.empty_batches() > beats + 3; }));
  EXPECT_EQ(state(), before);
  out_.resolve(out_.held() - 1, Outcome::done);
  EXPECT_TRUE(eventually([&] { return state() == end_of_log(); }));
}

TEST_F(SourceBinlogTest, ChangesOfTheTableItselfAreFollowed) {
  for (const char* metadata : {"FULL", "NO_LOG"}) {
    execute(
        {std::string("SET GLOBAL binlog_row_metadata = ") + metadata, "DROP TABLE IF EXISTS t"});
    make_table();
    std::filesystem::remove(options_.state);
    Collector out;
    RunningSource source(options_, out);
    // Without names in the log each version must be read while the table is like that.
    const auto step = [&](const std::vector<std::string>& statements, std::size_t changes) {
      execute(statements);
      ASSERT_TRUE(eventually([&] { return out.count() >= changes; }));
    };
    step({"INSERT INTO t VALUES (1, 'a')"}, 1);
    step({"ALTER TABLE t ADD COLUMN b INT UNSIGNED DEFAULT 7 FIRST", "UPDATE t SET a = 'b'"}, 2);
    step({"ALTER TABLE t CHANGE a c CHAR(5), DROP COLUMN b", "UPDATE t SET c = 'c'"}, 3);
    step({"TRUNCATE t", "INSERT INTO t VALUES (2, 'd')"}, 4);
    source.stop();
    EXPECT_EQ(source.failure(), "");
    EXPECT_THAT(all_told(out), ElementsAre("i 1 a", "u 7 1 a -> 7 1 b", "u 1 b -> 1 c", "i 2 d"));
    EXPECT_EQ(out.changes()[1].after[0].first, "b");
    EXPECT_EQ(out.changes()[2].after[1].first, "c");
    EXPECT_EQ(source.context.dropped_for("ddl"), 3U);
  }
}

TEST_F(SourceBinlogTest, GeneratedAndHiddenColumnsArePartOfTheRow) {
  execute(
      {"CREATE TABLE t (id INT PRIMARY KEY, v INT AS (id * 2) VIRTUAL, s INT AS (id * 3) STORED, "
       "h INT INVISIBLE DEFAULT 9)"});
  RunningSource source(options_, out_);
  execute({"INSERT INTO t (id) VALUES (1)", "UPDATE t SET id = 2"});
  ASSERT_TRUE(eventually([&] { return out_.count() >= 2 || source.ended(); }));
  source.stop();
  EXPECT_EQ(source.failure(), "");
  EXPECT_THAT(all_told(out_), ElementsAre("i 1 2 3 9", "u 1 2 3 9 -> 2 4 6 9"));
}

TEST_F(SourceBinlogTest, OtherTablesAreCounted) {
  make_table();
  make_table("other");
  RunningSource source(options_, out_);
  insert(1, 3, "other");
  insert(4, 4);
  ASSERT_TRUE(eventually([&] { return out_.count() >= 1; }));
  EXPECT_TRUE(eventually([&] { return state() == end_of_log(); }));
  source.stop();
  EXPECT_EQ(out_.seen(), ids(4, 4));
  const std::map<std::string, std::uint64_t> expected = {{"table", 3}};
  EXPECT_EQ(source.context.all_dropped(), expected);
  EXPECT_EQ(source.context.counter("transactions").value(), 4U);
}

TEST_F(SourceBinlogTest, WithoutTablesAllAreTaken) {
  make_table();
  make_table("other");
  options_.tables.clear();
  RunningSource source(options_, out_);
  insert(1, 1);
  insert(2, 2, "other");
  ASSERT_TRUE(eventually([&] { return out_.count() >= 2; }));
  EXPECT_EQ(out_.changes()[1].table, "other");
}

TEST_F(SourceBinlogTest, CompressedEventsAreRead) {
  make_table();
  execute({"SET GLOBAL log_bin_compress = 1, log_bin_compress_min_len = 10"});
  RunningSource source(options_, out_);
  execute({"INSERT INTO t VALUES (1, REPEAT('x', 20)), (2, REPEAT('x', 20))",
           "UPDATE t SET a = REPEAT('y', 20)", "ALTER TABLE t ADD COLUMN b INT", "DELETE FROM t"});
  const bool came = eventually([&] { return out_.count() >= 6; });
  execute({"SET GLOBAL log_bin_compress = 0"});
  ASSERT_TRUE(came);
  EXPECT_EQ(all_told(out_)[3], "u 2 xxxxxxxxxxxxxxxxxxxx -> 2 yyyyyyyyyyyyyyyyyyyy");
  EXPECT_EQ(all_told(out_)[5], "d 2 yyyyyyyyyyyyyyyyyyyy NULL");
}

TEST_F(SourceBinlogTest, NowBeginsWithTheNextChangeAndKeepsThatPlace) {
  make_table();
  insert(1, 2);
  const std::string before = end_of_log();
  {
    const RunningSource source(options_, out_);
    EXPECT_EQ(state(), before);
  }
  // What comes while nothing runs is not lost, even if nothing was read before.
  insert(3, 4);
  RunningSource source(options_, out_);
  ASSERT_TRUE(eventually([&] { return out_.count() >= 2; }));
  EXPECT_EQ(out_.seen(), ids(3, 4));
}

TEST_F(SourceBinlogTest, OldestBeginsWithTheOldestLog) {
  make_table();
  execute({"FLUSH BINARY LOGS"});
  const auto logs = query("SHOW BINARY LOGS");
  execute({"PURGE BINARY LOGS TO '" + logs.back().at(0).value_or("") + "'"});
  insert(1, 2);
  execute({"FLUSH BINARY LOGS"});
  insert(3, 4);
  options_.start = StartAt::oldest;
  RunningSource source(options_, out_);
  ASSERT_TRUE(eventually([&] { return out_.count() >= 4; }));
  EXPECT_EQ(out_.seen(), ids(1, 4));
  EXPECT_TRUE(eventually([&] { return state() == end_of_log(); }));
}

TEST_F(SourceBinlogTest, ARestartGoesOnBehindWhatWasDelivered) {
  make_table();
  {
    RunningSource source(options_, out_);
    insert(1, 3);
    ASSERT_TRUE(eventually([&] { return out_.count() >= 3; }));
  }
  EXPECT_EQ(state(), end_of_log());
  insert(4, 5);
  RunningSource source(options_, out_);
  ASSERT_TRUE(eventually([&] { return out_.count() >= 5; }));
  EXPECT_EQ(out_.seen(), ids(1, 5));
}

TEST_F(SourceBinlogTest, ThePositionFollowsTheReceiptsInOrder) {
  make_table();
  options_.batch = 1;
  options_.finish = 0s;
  out_.set(Collector::Receipts::hold);
  std::string before;
  {
    RunningSource source(options_, out_);
    before = state();
    insert(1, 2);
    ASSERT_TRUE(eventually([&] { return out_.held() == 2; }));
    out_.resolve(1, Outcome::done);
    source.stop();
  }
  EXPECT_EQ(state(), before);
  out_.resolve(0, Outcome::done);  // too late, and of no harm
  out_.set(Collector::Receipts::done);
  RunningSource source(options_, out_);
  ASSERT_TRUE(eventually([&] { return out_.count() >= 4; }));
  EXPECT_THAT(out_.seen(), ElementsAre("1", "2", "1", "2"));
  EXPECT_TRUE(eventually([&] { return state() == end_of_log(); }));
}

TEST_F(SourceBinlogTest, WhatIsDeliveredWhileItEndsIsKept) {
  make_table();
  out_.set(Collector::Receipts::hold);
  RunningSource source(options_, out_);
  insert(1, 1);
  ASSERT_TRUE(eventually([&] { return out_.held() == 1; }));
  std::jthread later([&] { out_.resolve_all(Outcome::done); });
  source.stop();
  EXPECT_EQ(state(), end_of_log());
}

TEST_F(SourceBinlogTest, ABatchThatFailsIsReadAgain) {
  make_table();
  options_.batch = 1;
  out_.set(Collector::Receipts::hold);
  RunningSource source(options_, out_);
  insert(1, 3);
  ASSERT_TRUE(eventually([&] { return out_.held() == 3; }));
  out_.resolve(0, Outcome::done);
  out_.set(Collector::Receipts::done);
  out_.resolve(1, Outcome::failed);
  ASSERT_TRUE(eventually([&] { return out_.count() >= 5; }));
  EXPECT_THAT(out_.seen(), ElementsAre("1", "2", "3", "2", "3"));
  EXPECT_TRUE(source.logged("a batch was not delivered; the log is read again behind"));
  EXPECT_TRUE(eventually([&] { return state() == end_of_log(); }));
  EXPECT_EQ(source.context.counter("read-again").value(), 1U);
}

TEST_F(SourceBinlogTest, AFullWindowStopsTheReading) {
  make_table();
  options_.batch = 1;
  options_.window = 2;
  out_.set(Collector::Receipts::hold);
  RunningSource source(options_, out_);
  insert(1, 10);
  ASSERT_TRUE(eventually([&] { return out_.held() == 2; }));
  const std::size_t beats = out_.empty_batches();
  ASSERT_TRUE(eventually([&] { return out_.empty_batches() > beats + 5; }));
  EXPECT_EQ(out_.count(), 2U);
  out_.set(Collector::Receipts::done);
  out_.resolve_all(Outcome::done);
  ASSERT_TRUE(eventually([&] { return out_.count() >= 10; }));
  EXPECT_EQ(out_.seen(), ids(1, 10));
}

TEST_F(SourceBinlogTest, TimeMovesOnWhenNothingChanges) {
  make_table();
  const RunningSource source(options_, out_);
  EXPECT_TRUE(eventually([&] { return out_.empty_batches() > 5; }));
}

TEST_F(SourceBinlogTest, AStateFileThatIsNoneIsSaid) {
  make_table();
  for (const auto& [text, said] :
       {std::pair("", "is damaged: expected one line 'gtid POSITION'"),
        std::pair("gtid 0-1-5", "is damaged: expected one line"),
        std::pair("gtid 0-1\n", "is damaged: '0-1' is no GTID position")}) {
    std::ofstream(options_.state) << text;
    EXPECT_THAT(refusal(), AllOf(StartsWith("the state file '" + options_.state), HasSubstr(said),
                                 HasSubstr("delete it")));
  }
  options_.state = "/nowhere/at/all";
  EXPECT_THAT(refusal(), StartsWith("state: cannot write to '/nowhere/at': No such file"));
}

std::string finding(const BinlogOptions& options) {
  Findings findings;
  check_binlog_options(options, findings);
  if (findings.list().empty()) return "none";
  return findings.list().front().option + ": " + findings.list().front().message;
}

TEST(BinlogOptionsTest, WhatCannotWorkIsFoundBeforeTheStart) {
  BinlogOptions good;
  good.server = "mysql://user:word@host/db";
  good.state = "state";
  good.tables = {"db.t"};
  EXPECT_EQ(finding(good), "none");
  BinlogOptions bad = good;
  bad.tables = {"db.t", "t"};
  EXPECT_EQ(finding(bad), "tables: 't' is not of the form database.table");
  bad = good;
  bad.state = "";
  EXPECT_EQ(finding(bad), "state: expected the path of a file");
  bad = good;
  bad.server = "host:3306";
  EXPECT_THAT(finding(bad), StartsWith("server: expected mysql://"));
  bad = good;
  bad.password = "word";
  EXPECT_EQ(finding(bad), "password: there is a password in 'server' already");
  bad = good;
  bad.tls = Tls::verify;
  EXPECT_EQ(finding(bad), "tls_ca: is needed for tls = \"verify\"");
}

}  // namespace
}  // namespace millrace
