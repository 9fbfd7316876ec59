#include <atomic>
#include <thread>

#include "mysql_fixture.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;

class SinkMysqlFaultsTest : public SinkMysqlTest {
 protected:
  void SetUp() override {
    SinkMysqlTest::SetUp();
    options_.connect_timeout = options_.write_timeout = std::chrono::seconds(1);
    options_.read_timeout = std::chrono::seconds(2);
  }

  /// What a write throws as Transient.
  static std::string transient(SinkMysql& sink, Batch<Verdict>& batch) {
    try {
      give(sink, batch);
    } catch (const Transient& error) {
      return error.what();
    }
    return "no error";
  }
};

TEST_F(SinkMysqlFaultsTest, RestartOfTheServerIsTransientAndPreparesAnew) {
  SinkMysql sink(options_);
  sink.open(context_);
  Batch<Verdict> first = batch_of(verdicts(1, 3, "a"));
  give(sink, first);
  services()->restart(server());
  Batch<Verdict> second = batch_of(verdicts(2, 3, "a"));
  EXPECT_THAT(transient(sink, second), HasSubstr("(error 20"));
  EXPECT_EQ(second.items.size(), 3U);
  EXPECT_TRUE(second.receipt);
  give(sink, second);
  EXPECT_EQ(receipts_.done(), 2);
  EXPECT_EQ(query("SELECT COUNT(*) FROM sessions"), "4;");
  EXPECT_EQ(count("reconnected"), 1U);
  EXPECT_EQ(count("stored"), 4U);
  EXPECT_EQ(count("already-stored"), 2U);
}

TEST_F(SinkMysqlFaultsTest, ServerThatIsKilledAgainAndAgainLosesAndDoublesNothing) {
  constexpr std::uint16_t kRows = 40000;
  constexpr std::uint16_t kQuarter = kRows / 4;
  constexpr std::uint16_t kBatch = 100;
  std::atomic<std::uint16_t> given = 0;
  std::atomic<int> retried = 0;
  std::atomic<int> killed = 0;
  std::exception_ptr failure;
  std::jthread writer([&](const std::stop_token& stop) {
    try {
      SinkMysql sink(options_);
      sink.open(context_);
      const auto persist = [&](Batch<Verdict>& batch) {
        while (true) {
          try {
            return give(sink, batch);
          } catch (const Transient&) {
            if (stop.stop_requested()) throw;  // the test has failed
            ++retried;
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
          }
        }
      };
      for (std::uint16_t first = 0; first < kRows; first += kBatch) {
        // The kill of a quarter comes somewhere in its first half, so each is met by rows.
        if (first % kQuarter == kQuarter / 2) {
          while (killed < first / kQuarter && !stop.stop_requested()) std::this_thread::yield();
        }
        Batch<Verdict> batch = batch_of(verdicts(first, kBatch, "a"));
        persist(batch);
        given = static_cast<std::uint16_t>(first + kBatch);
      }
    } catch (...) {
      failure = std::current_exception();
    }
    given = kRows;
  });
  for (const int part : {1, 2, 3}) {
    while (given < kQuarter * part) std::this_thread::yield();
    services()->kill(server());
    ++killed;
    services()->start(server());
  }
  writer.join();
  EXPECT_FALSE(failure);
  EXPECT_GE(retried, 3);
  EXPECT_EQ(receipts_.done(), kRows / kBatch);
  EXPECT_EQ(receipts_.failed(), 0);
  EXPECT_EQ(query("SELECT COUNT(*), COUNT(DISTINCT session) FROM sessions WHERE label = 'a'"),
            "40000;40000;");
  EXPECT_EQ(count("stored") + count("already-stored"), kRows);
  EXPECT_GE(count("reconnected"), 3U);
}

TEST_F(SinkMysqlFaultsTest, ServerThatDoesNotAnswerIsTransientInTime) {
  SinkMysql sink(options_);
  sink.open(context_);
  services()->pause(server());
  Batch<Verdict> batch = batch_of({verdict(1, "a")});
  const auto begin = std::chrono::steady_clock::now();
  const std::string connected = transient(sink, batch);
  const std::string connecting = transient(sink, batch);
  const auto took = std::chrono::steady_clock::now() - begin;
  services()->resume(server());
  EXPECT_THAT(connected, HasSubstr("Lost connection"));
  EXPECT_THAT(connecting, HasSubstr("(error 20"));
  EXPECT_LT(took, std::chrono::seconds(15));
  while (receipts_.pending() != 0) transient(sink, batch);
  EXPECT_EQ(query("SELECT COUNT(*) FROM sessions"), "1;");
}

TEST_F(SinkMysqlFaultsTest, ConnectionThatIsKilledIsTransient) {
  SinkMysql sink(options_);
  sink.open(context_);
  Connection other;
  other.open(root_options());
  const auto others = other.query(
      "SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND db = '" +
      database_ + "'");
  ASSERT_EQ(others.size(), 1U);
  other.execute("KILL " + others[0][0].value_or(""));
  Batch<Verdict> batch = batch_of({verdict(1, "a")});
  EXPECT_THAT(transient(sink, batch), HasSubstr("(error"));
  give(sink, batch);
  EXPECT_EQ(count("stored"), 1U);
}

TEST_F(SinkMysqlFaultsTest, CommitThatDidNotReachTheServerIsAnError) {
  Connection connection;
  connection.open(root_options());
  connection.execute("CREATE TABLE t (x INT)");
  connection.execute("INSERT INTO t VALUES (1)");
  execute("KILL " + connection.query("SELECT CONNECTION_ID()").at(0).at(0).value_or(""));
  EXPECT_THROW(connection.commit(), ServerError);
  EXPECT_FALSE(connection.roll_back());
  EXPECT_EQ(query("SELECT COUNT(*) FROM t"), "0;");
}

TEST_F(SinkMysqlFaultsTest, ConnectionThatWasIdleForTooLongIsTransient) {
  const std::string before = query("SELECT @@GLOBAL.wait_timeout");
  execute("SET GLOBAL wait_timeout = 1");
  SinkMysql sink(options_);
  sink.open(context_);
  execute("SET GLOBAL wait_timeout = " + before.substr(0, before.size() - 1));
  const std::string connections =
      "SELECT COUNT(*) FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND db = '" +
      database_ + "'";
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (query(connections) != "0;" && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  // MySQL has said why (4031) before it went.
  Batch<Verdict> batch = batch_of({verdict(1, "a")});
  EXPECT_THAT(transient(sink, batch), HasSubstr("(error"));
  give(sink, batch);
  EXPECT_EQ(query("SELECT COUNT(*) FROM sessions"), "1;");
  EXPECT_EQ(count("reconnected"), 1U);
}

TEST_F(SinkMysqlFaultsTest, LockedRowIsTransientAndKeepsTheConnection) {
  run({verdict(1, "")});
  SinkMysql sink(options_);
  sink.open(context_);
  Connection other;
  other.open(root_options());
  other.execute("UPDATE sessions SET packets = 5");
  Batch<Verdict> batch = batch_of({verdict(0, "a"), verdict(1, "a")});
  EXPECT_THAT(transient(sink, batch), HasSubstr("Lock wait timeout"));
  EXPECT_EQ(query("SELECT COUNT(*) FROM sessions"), "1;");
  other.commit();
  give(sink, batch);
  EXPECT_EQ(query("SELECT label, packets FROM sessions ORDER BY session"), "a;0;a;5;");
  EXPECT_EQ(count("reconnected"), 0U);
  EXPECT_EQ(count("stored"), 2U);
  EXPECT_EQ(count("labelled"), 1U);
}

TEST_F(SinkMysqlFaultsTest, TooManyConnectionsAreTransient) {
  make_user("single", "WITH MAX_USER_CONNECTIONS 1");
  options_.server = url("single");
  SinkMysql first(options_);
  first.open(context_);
  SinkMysql second(options_);
  try {
    second.open(context_);
    FAIL() << "there is one connection already";
  } catch (const Transient& error) {
    EXPECT_THAT(error.what(), HasSubstr("max_user_connections"));
  }
}

TEST_F(SinkMysqlFaultsTest, ServerThatMayOnlyBeReadIsTransient) {
  make_user("plain");
  options_.server = url("plain");
  SinkMysql sink(options_);
  sink.open(context_);
  execute("SET GLOBAL read_only = 1");
  Batch<Verdict> batch = batch_of({verdict(1, "a")});
  const std::string message = transient(sink, batch);
  execute("SET GLOBAL read_only = 0");
  EXPECT_THAT(message, HasSubstr("read-only"));
  give(sink, batch);
  EXPECT_EQ(query("SELECT COUNT(*) FROM sessions"), "1;");
}

/// What a write throws that is no Transient.
std::string fatal(SinkMysql& sink, Batch<Verdict>& batch) {
  try {
    sink.write(batch);
  } catch (const Transient& error) {
    return std::string("transient: ") + error.what();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "no error";
}

TEST_F(SinkMysqlFaultsTest, TableThatGoesAwayIsFatal) {
  SinkMysql sink(options_);
  sink.open(context_);
  execute("DROP TABLE sessions");
  Batch<Verdict> batch = batch_of({verdict(1, "a")});
  EXPECT_THAT(fatal(sink, batch),
              AllOf(HasSubstr("sessions' doesn't exist"), ::testing::StartsWith("mysql://root@")));
  EXPECT_EQ(receipts_.pending(), 1);
}

TEST_F(SinkMysqlFaultsTest, RefusalOfTheDatabaseIsFatalAndStoresNothing) {
  SinkMysql sink(options_);
  sink.open(context_);
  execute("ALTER TABLE sessions ADD CONSTRAINT small CHECK (packets < 600)");
  Batch<Verdict> batch = batch_of(verdicts(1, 700, "a"));
  EXPECT_THAT(fatal(sink, batch),
              AnyOf(HasSubstr("CONSTRAINT `small` failed"),               // MariaDB
                    HasSubstr("Check constraint 'small' is violated")));  // MySQL
  EXPECT_EQ(query("SELECT COUNT(*) FROM sessions"), "0;");
  EXPECT_EQ(receipts_.pending(), 1);
}

}  // namespace
}  // namespace millrace
