#include <atomic>
#include <thread>

#include "postgres_fixture.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class SinkPostgresFaultsTest : public SinkPostgresTest {
 protected:
  void SetUp() override {
    SinkPostgresTest::SetUp();
    options_.connect_timeout = options_.write_timeout = std::chrono::seconds(1);
    options_.read_timeout = std::chrono::seconds(2);
  }

  /// What a write throws as Transient.
  static std::string transient(SinkPostgres& sink, Batch<Verdict>& batch) {
    try {
      give(sink, batch);
    } catch (const Transient& error) {
      return error.what();
    }
    return "no error";
  }
  /// As the host does; returns how often it did not work.
  static int persist(SinkPostgres& sink, Batch<Verdict>& batch, const std::stop_token& stop = {}) {
    for (int retried = 0; !stop.stop_requested(); ++retried) {
      try {
        give(sink, batch);
        return retried;
      } catch (const Transient&) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
    }
    throw std::runtime_error("the test has ended");
  }
};

TEST_F(SinkPostgresFaultsTest, RestartOfTheServerIsTransientAndPreparesAnew) {
  SinkPostgres sink(options_);
  sink.open(context_);
  Batch<Verdict> first = batch_of(verdicts(1, 3, "a"));
  give(sink, first);
  services()->restart("postgres");
  Batch<Verdict> second = batch_of(verdicts(2, 3, "a"));
  EXPECT_THAT(transient(sink, second), AllOf(StartsWith("postgresql://postgres@127.0.0.1:"),
                                             AnyOf(HasSubstr("administrator command"),
                                                   HasSubstr("server closed the connection"))));
  EXPECT_EQ(second.items.size(), 3U);
  EXPECT_TRUE(second.receipt);
  persist(sink, second);
  EXPECT_EQ(receipts_.done(), 2);
  EXPECT_EQ(query("SELECT count(*) FROM sessions"), "4;");
  EXPECT_EQ(count("reconnected"), 1U);
  EXPECT_EQ(count("stored"), 4U);
  EXPECT_EQ(count("already-stored"), 2U);
}

TEST_F(SinkPostgresFaultsTest, ServerThatIsKilledAgainAndAgainLosesAndDoublesNothing) {
  constexpr std::uint16_t kRows = 40000;
  constexpr std::uint16_t kQuarter = kRows / 4;
  constexpr std::uint16_t kBatch = 100;
  options_.read_timeout = std::chrono::seconds(20);
  std::atomic<std::uint16_t> given = 0;
  std::atomic<int> retried = 0;
  std::atomic<int> killed = 0;
  std::exception_ptr failure;
  std::jthread writer([&](const std::stop_token& stop) {
    try {
      SinkPostgres sink(options_);
      sink.open(context_);
      for (std::uint16_t first = 0; first < kRows; first += kBatch) {
        // The kill of a quarter comes somewhere in its first half, so each is met by rows.
        if (first % kQuarter == kQuarter / 2) {
          while (killed < first / kQuarter && !stop.stop_requested()) std::this_thread::yield();
        }
        Batch<Verdict> batch = batch_of(verdicts(first, kBatch, "a"));
        retried += persist(sink, batch, stop);
        given = static_cast<std::uint16_t>(first + kBatch);
      }
    } catch (...) {
      failure = std::current_exception();
    }
    given = kRows;
  });
  for (const int part : {1, 2, 3}) {
    while (given < kQuarter * part) std::this_thread::yield();
    services()->kill("postgres");
    ++killed;
    services()->start("postgres");
  }
  writer.join();
  EXPECT_FALSE(failure);
  EXPECT_GE(retried, 3);
  EXPECT_EQ(receipts_.done(), kRows / kBatch);
  EXPECT_EQ(receipts_.failed(), 0);
  EXPECT_EQ(query("SELECT count(*), count(DISTINCT session) FROM sessions WHERE label = 'a'"),
            "40000;40000;");
  EXPECT_EQ(count("stored") + count("already-stored"), kRows);
  EXPECT_GE(count("reconnected"), 3U);
}

TEST_F(SinkPostgresFaultsTest, OutageIsOutlasted) {
  SinkPostgres sink(options_);
  sink.open(context_);
  services()->stop("postgres");
  Batch<Verdict> batch = batch_of(verdicts(1, 10, "a"));
  EXPECT_NE(transient(sink, batch), "no error");
  for (int i = 0; i < 5; ++i) EXPECT_THAT(transient(sink, batch), HasSubstr("Connection refused"));
  services()->start("postgres");
  persist(sink, batch);
  EXPECT_EQ(query("SELECT count(*) FROM sessions"), "10;");
  EXPECT_EQ(count("reconnected"), 1U);
}

TEST_F(SinkPostgresFaultsTest, ServerThatDoesNotAnswerIsTransientInTime) {
  SinkPostgres sink(options_);
  sink.open(context_);
  services()->pause("postgres");
  Batch<Verdict> batch = batch_of({verdict(1, "a")});
  const std::string connected = transient(sink, batch);
  const std::string connecting = transient(sink, batch);
  services()->resume("postgres");
  EXPECT_THAT(connected, HasSubstr("does not answer in time while being asked"));
  EXPECT_THAT(connecting, HasSubstr("does not answer in time while being connected to"));
  persist(sink, batch);
  EXPECT_EQ(query("SELECT count(*) FROM sessions"), "1;");
}

TEST_F(SinkPostgresFaultsTest, ConnectionThatIsKilledIsTransient) {
  SinkPostgres sink(options_);
  sink.open(context_);
  EXPECT_EQ(query("SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE "
                  "application_name = 'millrace stage'"),
            "1;");
  Batch<Verdict> batch = batch_of({verdict(1, "a")});
  EXPECT_NE(transient(sink, batch), "no error");
  persist(sink, batch);
  EXPECT_EQ(count("stored"), 1U);
}

TEST_F(SinkPostgresFaultsTest, LockedRowIsTransientAndKeepsTheConnection) {
  run({verdict(1, "")});
  SinkPostgres sink(options_);
  sink.open(context_);
  Connection other;
  other.open(root_options());
  other.begin();
  other.execute("UPDATE sessions SET packets = 5");
  Batch<Verdict> batch = batch_of({verdict(0, "a"), verdict(1, "a")});
  EXPECT_THAT(transient(sink, batch), HasSubstr("due to lock timeout (SQLSTATE 55P03)"));
  EXPECT_EQ(query("SELECT count(*) FROM sessions"), "1;");
  other.commit();
  give(sink, batch);
  EXPECT_EQ(query("SELECT label, packets FROM sessions ORDER BY session"), "a;0;a;5;");
  EXPECT_EQ(count("reconnected"), 0U);
  EXPECT_EQ(count("stored"), 2U);
  EXPECT_EQ(count("labelled"), 1U);
}

TEST_F(SinkPostgresFaultsTest, TooManyConnectionsAreTransient) {
  execute("CREATE ROLE single LOGIN CONNECTION LIMIT 1");
  execute("GRANT ALL ON SCHEMA public TO single");
  options_.server = url("single");
  SinkPostgres first(options_);
  first.open(context_);
  SinkPostgres second(options_);
  try {
    second.open(context_);
    FAIL() << "there is one connection already";
  } catch (const Transient& error) {
    EXPECT_THAT(error.what(),
                HasSubstr("too many connections for role \"single\" (SQLSTATE 53300)"));
  }
}

TEST_F(SinkPostgresFaultsTest, ServerThatMayOnlyBeReadIsTransient) {
  SinkPostgres sink(options_);
  sink.open(context_);
  Connection other;  // the setting is for new connections
  other.open(root_options());
  const std::string database = "ALTER DATABASE \"" + database_ + "\"";
  other.execute(database + " SET default_transaction_read_only = on");
  sink.close();
  Batch<Verdict> batch = batch_of({verdict(1, "a")});
  EXPECT_THAT(transient(sink, batch), HasSubstr("in a read-only transaction (SQLSTATE 25006)"));
  other.execute(database + " RESET default_transaction_read_only");
  persist(sink, batch);
  EXPECT_EQ(query("SELECT count(*) FROM sessions"), "1;");
}

TEST_F(SinkPostgresFaultsTest, StatementThatIsForgottenIsTransient) {
  SinkPostgres sink(options_);
  sink.open(context_);
  // What a pooler may do to a connection, done by the server itself.
  execute(
      "CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
      "EXECUTE 'DEALLOCATE ALL'; RETURN NULL; END $$");
  execute(
      "CREATE TRIGGER forget AFTER INSERT ON sessions FOR EACH STATEMENT EXECUTE FUNCTION "
      "forget()");
  Batch<Verdict> first = batch_of({verdict(1, "a")});
  give(sink, first);
  Batch<Verdict> second = batch_of({verdict(2, "a")});
  EXPECT_THAT(transient(sink, second), HasSubstr("SQLSTATE 26000"));
  execute("DROP TRIGGER forget ON sessions");
  persist(sink, second);
  EXPECT_EQ(query("SELECT count(*) FROM sessions"), "2;");
}

/// What a write throws that is no Transient.
std::string fatal(SinkPostgres& sink, Batch<Verdict>& batch) {
  try {
    sink.write(batch);
  } catch (const Transient& error) {
    return std::string("transient: ") + error.what();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "no error";
}

TEST_F(SinkPostgresFaultsTest, TableThatGoesAwayIsFatal) {
  SinkPostgres sink(options_);
  sink.open(context_);
  execute("DROP TABLE sessions CASCADE");
  Batch<Verdict> batch = batch_of({verdict(1, "a")});
  EXPECT_THAT(fatal(sink, batch), AllOf(HasSubstr("\"sessions\" does not exist (SQLSTATE 42P01)"),
                                        StartsWith("postgresql://postgres@")));
  EXPECT_EQ(receipts_.pending(), 1);
}

TEST_F(SinkPostgresFaultsTest, RightThatIsTakenAwayIsFatal) {
  execute("CREATE ROLE writer LOGIN");
  ASSERT_EQ(refusal(), "accepted");
  execute("GRANT ALL ON sessions TO writer");
  options_.server = url("writer");
  SinkPostgres sink(options_);
  sink.open(context_);
  execute("REVOKE INSERT ON sessions FROM writer");
  Batch<Verdict> batch = batch_of({verdict(1, "a")});
  EXPECT_THAT(fatal(sink, batch), HasSubstr("permission denied for table sessions"));
  EXPECT_EQ(receipts_.pending(), 1);
}

}  // namespace
}  // namespace millrace
