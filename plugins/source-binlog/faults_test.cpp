#include <thread>

#include "binlog_fixture.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

using SourceBinlogFaultsTest = BinlogTest;

/// Whether every id is among what was seen, and in order if repetitions are left out.
bool has_all(const Collector& out, int last) {
  int next = 1;
  for (const std::string& id : out.seen()) {
    const int number = std::stoi(id);
    if (number == next) {
      ++next;
    } else if (number > next) {
      return false;
    }
  }
  return next == last + 1;
}

TEST_F(SourceBinlogFaultsTest, ARestartOfTheServerLosesAndRepeatsNothing) {
  make_table();
  RunningSource source(options_, out_);
  insert(1, 2);
  ASSERT_TRUE(eventually([&] { return out_.count() == 2; }));
  services()->restart("mariadb");
  insert(3, 4);
  ASSERT_TRUE(eventually([&] { return out_.count() >= 4; }));
  EXPECT_EQ(out_.seen(), ids(1, 4));
  EXPECT_TRUE(source.logged("connects again until it is there"));
  EXPECT_TRUE(source.logged("connected again"));
  EXPECT_GE(source.context.counter("reconnects").value(), 1U);
  source.stop();
  EXPECT_EQ(source.failure(), "");
}

TEST_F(SourceBinlogFaultsTest, AServerThatIsKilledAgainAndAgainLosesNothing) {
  make_table();
  options_.batch = 10;
  RunningSource source(options_, out_);
  int last = 0;
  for (int round = 0; round < 3; ++round) {
    insert(last + 1, last + 20);
    last += 20;
    ASSERT_TRUE(eventually([&] { return out_.count() > static_cast<std::size_t>(last - 20); }));
    services()->kill("mariadb");
    services()->start("mariadb");
  }
  insert(last + 1, last + 1);
  ++last;
  ASSERT_TRUE(eventually([&] { return out_.seen().back() == std::to_string(last); }));
  EXPECT_TRUE(has_all(out_, last));
  EXPECT_TRUE(eventually([&] { return state() == end_of_log(); }));
}

TEST_F(SourceBinlogFaultsTest, AKilledTransactionIsNotGivenOn) {
  make_table();
  RunningSource source(options_, out_);
  insert(1, 1);
  {
    Connection connection;
    ConnectionOptions server;
    server.address = parse_server_address(url("root"));
    server.connect_timeout = server.read_timeout = server.write_timeout = 20s;
    connection.open(server);
    connection.execute("INSERT INTO t VALUES (2, 'never committed')");
    services()->kill("mariadb");
  }
  services()->start("mariadb");
  insert(3, 3);
  ASSERT_TRUE(eventually([&] { return out_.count() >= 2; }));
  EXPECT_THAT(out_.seen(), ::testing::ElementsAre("1", "3"));
}

TEST_F(SourceBinlogFaultsTest, AServerThatDoesNotAnswerIsGivenUpAndAnEndDoesNotWaitForIt) {
  make_table();
  RunningSource source(options_, out_);
  insert(1, 1);
  ASSERT_TRUE(eventually([&] { return out_.count() == 1; }));
  services()->pause("mariadb");
  const bool noticed =
      eventually([&] { return source.logged("connects again until it is there"); });
  services()->resume("mariadb");
  ASSERT_TRUE(noticed);
  insert(2, 2);
  ASSERT_TRUE(eventually([&] { return out_.count() >= 2; }));
  services()->pause("mariadb");
  source.stop();
  services()->resume("mariadb");
  EXPECT_EQ(source.failure(), "");
  EXPECT_EQ(out_.seen(), ids(1, 2));
}

TEST_F(SourceBinlogFaultsTest, TheStartWaitsForTheServer) {
  make_table();
  services()->stop("mariadb");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("(error 20"), StartsWith("mysql://root@127.0.0.1")));
  options_.wait = 60s;
  std::jthread later([] { services()->start("mariadb"); });
  RunningSource source(options_, out_);
  later.join();
  insert(1, 1);
  ASSERT_TRUE(eventually([&] { return out_.count() == 1; }));
}

TEST_F(SourceBinlogFaultsTest, ASourceThatDiesRepeatsOnlyWhatWasNotKept) {
  make_table();
  options_.commit_every = 1h;  // after the first writing none until the end
  options_.finish = 0s;
  out_.set(Collector::Receipts::hold);
  {
    RunningSource source(options_, out_);
    insert(1, 3);
    ASSERT_TRUE(eventually([&] { return out_.count() == 3; }));
  }
  out_.resolve_all(Outcome::failed);
  out_.set(Collector::Receipts::done);
  insert(4, 4);
  RunningSource source(options_, out_);
  ASSERT_TRUE(eventually([&] { return out_.count() >= 7; }));
  EXPECT_THAT(out_.seen(), ::testing::ElementsAre("1", "2", "3", "1", "2", "3", "4"));
}

TEST_F(SourceBinlogFaultsTest, LogsThatAreGoneEndTheStartOrAreCounted) {
  make_table();
  { const RunningSource source(options_, out_); }
  insert(1, 1);
  execute({"FLUSH BINARY LOGS"});
  insert(2, 2);
  execute({"FLUSH BINARY LOGS"});
  const auto logs = query("SHOW BINARY LOGS");
  execute({"PURGE BINARY LOGS TO '" + logs.back().at(0).value_or("") + "'"});
  insert(3, 3);
  EXPECT_THAT(refusal(), AllOf(StartsWith("the position 0-1-"),
                               HasSubstr("of the state file '" + options_.state + "'"),
                               HasSubstr("have been purged"), HasSubstr("on_gap = \"start\"")));
  options_.on_gap = OnGap::start;
  options_.start = StartAt::oldest;
  RunningSource source(options_, out_);
  ASSERT_TRUE(eventually([&] { return out_.count() >= 1; }));
  // How much is gone the server decides: a file that it still reads for somebody stays.
  ASSERT_TRUE(eventually([&] { return out_.seen().back() == "3"; }));
  EXPECT_NE(out_.seen().front(), "1");
  EXPECT_EQ(source.context.counter("gaps").value(), 1U);
  EXPECT_TRUE(
      source.logged("what was changed meanwhile does not come, and it goes on with start = "
                    "\"oldest\""));
  EXPECT_TRUE(eventually([&] { return state() == end_of_log(); }));
}

TEST_F(SourceBinlogFaultsTest, APositionThatTheServerNeverHadIsAGapToo) {
  make_table();
  std::ofstream(options_.state) << "gtid 0-1-999999999\n";
  EXPECT_THAT(refusal(), AllOf(StartsWith("the position 0-1-999999999 of the state file"),
                               HasSubstr("which is not in the master's binlog")));
}

TEST_F(SourceBinlogFaultsTest, WhatTheServerIsNotSetUpForIsNamed) {
  make_table();
  execute({"SET GLOBAL binlog_format = STATEMENT"});
  EXPECT_THAT(refusal(),
              AllOf(StartsWith("server: mysql://root@127.0.0.1"),
                    HasSubstr("binlog_format is STATEMENT"), HasSubstr("set binlog_format = ROW")));
  execute({"SET GLOBAL binlog_format = ROW", "SET GLOBAL binlog_row_image = MINIMAL"});
  EXPECT_THAT(refusal(), AllOf(HasSubstr("binlog_row_image is MINIMAL"),
                               HasSubstr("set binlog_row_image = FULL")));
}

TEST_F(SourceBinlogFaultsTest, SessionsThatLogOtherwiseEndTheRunAndNameTheVariable) {
  struct Case {
    std::vector<std::string> statements;
    const char* said;
  };
  const Case cases[] = {
      {{"SET binlog_row_image = MINIMAL", "UPDATE t SET a = 'b'"}, "set binlog_row_image = FULL"},
      {{"SET binlog_format = STATEMENT", "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "UPDATE t SET a = 'c'"},
       "set binlog_format = ROW"},
      {{"XA START 'x'", "UPDATE t SET a = 'd'", "XA END 'x'", "XA PREPARE 'x'", "XA COMMIT 'x'"},
       "they are of an XA transaction"},
  };
  make_table();
  insert(1, 1);
  for (const Case& one : cases) {
    std::filesystem::remove(options_.state);
    {
      RunningSource source(options_, out_);
      execute(one.statements);
      ASSERT_TRUE(eventually([&] { return source.ended(); }));
      source.stop();
      EXPECT_THAT(source.failure(), AllOf(StartsWith("transaction 0-1-"), HasSubstr(one.said),
                                          HasSubstr("on_bad = \"skip\"")));
    }
    // The next start begins with it, and may pass it over.
    BinlogOptions lenient = options_;
    lenient.on_bad = OnBad::skip;
    Collector out;
    RunningSource source(lenient, out);
    execute({"INSERT INTO t VALUES (2, 'x')", "DELETE FROM t WHERE id = 2"});
    ASSERT_TRUE(eventually([&] { return out.count() >= 2; }));
    EXPECT_EQ(source.context.dropped_for("unreadable"), 1U);
    EXPECT_TRUE(source.logged(one.said));
  }
  EXPECT_EQ(out_.count(), 0U);
}

TEST_F(SourceBinlogFaultsTest, StatementsOfOtherTablesAreOfNoHarm) {
  make_table();
  make_table("other");
  RunningSource source(options_, out_);
  execute({"SET binlog_format = STATEMENT",
           "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
           "INSERT INTO other VALUES (1, 'x')"});
  insert(2, 2);
  ASSERT_TRUE(eventually([&] { return out_.count() >= 1; }));
  EXPECT_EQ(source.context.dropped_for("table"), 1U);
}

TEST_F(SourceBinlogFaultsTest, ColumnsThatTheCatalogNoLongerHasAreUnreadable) {
  execute({"SET GLOBAL binlog_row_metadata = NO_LOG"});
  make_table();
  { const RunningSource source(options_, out_); }
  insert(1, 1);
  execute({"ALTER TABLE t ADD COLUMN b INT"});
  {
    RunningSource source(options_, out_);
    ASSERT_TRUE(eventually([&] { return source.ended(); }));
    source.stop();
    EXPECT_THAT(source.failure(), HasSubstr("it has 2 columns, and the table has 3 now"));
  }
  execute({"ALTER TABLE t DROP COLUMN a, CHANGE b a INT"}, "");
  RunningSource source(options_, out_);
  ASSERT_TRUE(eventually([&] { return source.ended(); }));
  source.stop();
  EXPECT_THAT(source.failure(), AllOf(HasSubstr("column 2 was of another type than 'a' (int(11))"),
                                      HasSubstr("binlog_row_metadata = FULL")));
}

TEST_F(SourceBinlogFaultsTest, RightsAndAddressesThatAreWrongAreSaid) {
  make_table();
  execute({"CREATE OR REPLACE USER reader@'%' IDENTIFIED BY 'word'",
           "GRANT SELECT ON `" + database_ + "`.* TO reader@'%'"});
  options_.server = url("reader:word");
  EXPECT_THAT(refusal(),
              AllOf(StartsWith("server: mysql://reader@127.0.0.1"),
                    HasSubstr("the REPLICATION SLAVE privilege"), Not(HasSubstr("word"))));
  options_.server = url("reader:wrong");
  EXPECT_THAT(refusal(), AllOf(StartsWith("server: "), HasSubstr("Access denied")));
  options_.server = url("reader");
  options_.password = "wrong";
  EXPECT_THAT(refusal(), AllOf(StartsWith("password: "), HasSubstr("Access denied")));
  options_.password = "word";
  execute({"GRANT REPLICATION SLAVE ON *.* TO reader@'%'"});
  RunningSource source(options_, out_);
  insert(1, 1);
  EXPECT_TRUE(eventually([&] { return out_.count() == 1; }));
  source.stop();
  options_.password.clear();
  options_.server = url("root", "nowhere");
  EXPECT_THAT(refusal(), AllOf(StartsWith("server: "), HasSubstr("Unknown database 'nowhere'")));
}

TEST_F(SourceBinlogFaultsTest, TwoOfOneServerIdAreSaid) {
  make_table();
  options_.server_id = 77;
  RunningSource first(options_, out_);
  insert(1, 1);
  ASSERT_TRUE(eventually([&] { return out_.count() == 1; }));
  BinlogOptions other = options_;
  other.state += "2";
  Collector out;
  RunningSource second(other, out);
  ASSERT_TRUE(eventually([&] { return first.ended(); }));
  first.stop();
  EXPECT_THAT(first.failure(), HasSubstr("another replica has the server_id 77 too"));
  insert(2, 2);
  EXPECT_TRUE(eventually([&] { return out.count() == 1; }));
}

}  // namespace
}  // namespace millrace
