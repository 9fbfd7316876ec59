#include <thread>

#include "mysql_fixture.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

using SinkMysqlOpenTest = SinkMysqlTest;

TEST_F(SinkMysqlOpenTest, TableThatIsMissingIsNamed) {
  options_.create = false;
  EXPECT_EQ(refusal(),
            "table: there is no table 'sessions' that this user may see; with create = "
            "true it is made");
  EXPECT_EQ(query("SHOW TABLES"), "");
}

TEST_F(SinkMysqlOpenTest, WhatWasMadeFits) {
  EXPECT_EQ(refusal(), "accepted");
  EXPECT_EQ(refusal(), "accepted");
  options_.create = false;
  EXPECT_EQ(refusal(), "accepted");
  EXPECT_EQ(query("SHOW TABLES"), "sessions;sessions_readable;");
}

TEST_F(SinkMysqlOpenTest, OtherNameOfTheTable) {
  options_.table = "my-$table";
  run({verdict(1, "a")});
  EXPECT_EQ(query("SHOW TABLES"), "my-$table;my-$table_readable;");
  EXPECT_EQ(query("SELECT label FROM `my-$table_readable`"), "a;");
}

TEST_F(SinkMysqlOpenTest, SeveralMakeTheSchemaAtOnce) {
  std::atomic<int> accepted = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] { accepted += refusal() == "accepted" ? 1 : 0; });
    }
  }
  EXPECT_EQ(accepted, 4);
}

TEST_F(SinkMysqlOpenTest, EverythingTheTableLacksIsNamed) {
  struct Case {
    const char* change;
    const char* message;
  };
  for (const Case& wrong : {
           Case{"DROP COLUMN epoch", "column 'epoch' (INT UNSIGNED) is missing"},
           Case{"DROP COLUMN classified_at", "column 'classified_at' (BIGINT) is missing"},
           Case{"DROP PRIMARY KEY", "a unique key of the column 'session' alone is missing"},
           Case{"DROP PRIMARY KEY, ADD KEY (session)", "a unique key of the column"},
           Case{"DROP PRIMARY KEY, ADD UNIQUE (session, src)", "a unique key of the column"},
           Case{"DROP PRIMARY KEY, ADD UNIQUE (session(8))", "a unique key of the column"},
           Case{"MODIFY session BINARY(8) NOT NULL",
                "column 'session' is binary(8), expected BINARY(16)"},
           Case{"MODIFY src VARCHAR(40) NOT NULL",
                "column 'src' is varchar(40), expected VARBINARY(16)"},
           Case{"MODIFY bytes BIGINT NOT NULL",
                server() == "mysql" ? "column 'bytes' is bigint, expected BIGINT UNSIGNED"
                                    : "column 'bytes' is bigint(20), expected BIGINT UNSIGNED"},
           Case{"MODIFY first_seen DATETIME(6) NOT NULL",
                "column 'first_seen' is datetime(6), expected BIGINT"},
           Case{"MODIFY label VARCHAR(20) CHARACTER SET latin1 NOT NULL",
                "column 'label' has the character set latin1, expected utf8mb4"},
           Case{"MODIFY confidence DOUBLE NOT NULL",
                "column 'confidence' is NOT NULL, expected to take NULL"},
           Case{"ADD COLUMN owner INT NOT NULL",
                "column 'owner' is none of this stage's, and needs a default"},
           Case{"MODIFY reason VARCHAR(4) NOT NULL",
                "column 'reason' is varchar(4), expected VARCHAR(16)"},
           Case{"MODIFY model TINYTEXT CHARACTER SET utf8mb4 NOT NULL",
                "column 'model' is tinytext, expected VARCHAR(255)"},
           Case{"DROP KEY by_label, ENGINE = MyISAM",
                "the engine MyISAM has no transactions, expected InnoDB"},
       }) {
    execute("DROP TABLE IF EXISTS sessions");
    options_.create = true;
    ASSERT_EQ(refusal(), "accepted");
    execute(std::string("ALTER TABLE sessions ") + wrong.change);
    for (const bool create : {false, true}) {
      options_.create = create;
      EXPECT_THAT(refusal(), AllOf(StartsWith("table: the table 'sessions' does not fit: "),
                                   HasSubstr(wrong.message)))
          << wrong.change;
    }
  }
  execute("ALTER TABLE sessions DROP COLUMN agent, DROP COLUMN label");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("'agent'"), HasSubstr("'label'"), HasSubstr("engine")));
}

TEST_F(SinkMysqlOpenTest, ColumnThatOnlyUpdatesSetNeedsADefault) {
  ASSERT_EQ(refusal(), "accepted");
  execute("ALTER TABLE sessions ADD COLUMN touched TIMESTAMP NOT NULL ON UPDATE NOW()");
  if (server() == "mysql") {
    EXPECT_THAT(refusal(), HasSubstr("'touched' is none of this stage's, and needs a default"));
  } else {
    run({verdict(1, "a")});  // MariaDB gives it the default 0
  }
}

TEST_F(SinkMysqlOpenTest, TableMayHaveMoreThanIsNeeded) {
  ASSERT_EQ(refusal(), "accepted");
  execute(
      "ALTER TABLE sessions ADD COLUMN id BIGINT NOT NULL AUTO_INCREMENT FIRST, "
      "DROP PRIMARY KEY, ADD PRIMARY KEY (id), ADD UNIQUE (session), "
      "ADD COLUMN note VARCHAR(10), ADD COLUMN came TIMESTAMP NOT NULL DEFAULT NOW(), "
      "ADD COLUMN size BIGINT UNSIGNED AS (bytes + packets) STORED, "
      "MODIFY label TEXT CHARACTER SET utf8mb4 NOT NULL, DROP KEY by_label");
  execute("DROP VIEW sessions_readable");
  options_.create = false;
  run({verdict(1, "a"), verdict(1, "a"), verdict(2, "")});
  run({verdict(2, "b")});
  EXPECT_EQ(query("SELECT label FROM sessions ORDER BY session"), "a;b;");
}

TEST_F(SinkMysqlOpenTest, ViewIsNoTable) {
  ASSERT_EQ(refusal(), "accepted");
  options_.table = "sessions_readable";
  EXPECT_THAT(refusal(), HasSubstr("it is no table but a view"));
}

TEST_F(SinkMysqlOpenTest, WrongPasswordNamesTheOption) {
  make_user("guarded", "IDENTIFIED BY 'p@ss/:%word'");
  options_.server = url("guarded");
  options_.password = "not-it";
  EXPECT_THAT(refusal(), AllOf(StartsWith("password: mysql://guarded@127.0.0.1"),
                               HasSubstr("Access denied"), Not(HasSubstr("not-it"))));
  options_.password.clear();
  EXPECT_THAT(refusal(), StartsWith("server: "));
  options_.server = url("guarded:not-it");
  EXPECT_THAT(refusal(), AllOf(StartsWith("server: "), Not(HasSubstr("not-it"))));
  options_.server = url("guarded:p%40ss%2F%3A%25word");
  EXPECT_EQ(refusal(), "accepted");
  options_.server = url("guarded");
  options_.password = "p@ss/:%word";
  EXPECT_EQ(refusal(), "accepted");
}

TEST_F(SinkMysqlOpenTest, PasswordOfMysqlGoesOverTcpWithoutTls) {
  if (server() != "mysql") {
    GTEST_SKIP()
        << "SKIPPED: MariaDB has no caching_sha2_password; MILLRACE_MYSQLD names no mysqld";
  }
  make_user("hashed", "IDENTIFIED WITH caching_sha2_password BY 'secret'");
  options_.server = url("hashed:secret");
  for (const char* cache : {"empty", "filled"}) EXPECT_EQ(refusal(), "accepted") << cache;
  execute("FLUSH PRIVILEGES");  // empties the server's cache of passwords
  EXPECT_EQ(refusal(), "accepted");
  options_.server = url("hashed:wrong");
  EXPECT_THAT(refusal(), AllOf(StartsWith("server: "), HasSubstr("Access denied")));
}

TEST_F(SinkMysqlOpenTest, UnknownDatabaseNamesTheOption) {
  options_.server =
      "mysql://root@127.0.0.1:" + std::to_string(services()->port(server())) + "/nowhere";
  EXPECT_THAT(refusal(), AllOf(StartsWith("server: "), HasSubstr("Unknown database 'nowhere'")));
}

TEST_F(SinkMysqlOpenTest, MissingRightsShowAtTheStart) {
  ASSERT_EQ(refusal(), "accepted");
  make_user("reader", "", "SELECT");
  options_.server = url("reader");
  EXPECT_THAT(refusal(), AllOf(StartsWith("table: "), HasSubstr("CREATE command denied")));
  options_.create = false;
  EXPECT_THAT(refusal(), HasSubstr("command denied to user 'reader'"));
  execute("GRANT INSERT, UPDATE ON `" + database_ + "`.* TO reader@'%'");
  EXPECT_EQ(refusal(), "accepted");
}

TEST_F(SinkMysqlOpenTest, UnixSocket) {
  const std::string path = services()->folder() / server() / "sock";
  options_.server = "mysql://root@/" + database_ + "?socket=" + path;
  run({verdict(1, "a")});
  EXPECT_EQ(query("SELECT COUNT(*) FROM sessions"), "1;");
  options_.server += "x";
  SinkMysql sink(options_);
  EXPECT_THROW(sink.open(context_), Transient);
}

TEST_F(SinkMysqlOpenTest, TooSmallMessagesAreRefused) {
  const std::string before = query("SELECT @@GLOBAL.max_allowed_packet");
  execute("SET GLOBAL max_allowed_packet = 8192");
  EXPECT_THAT(refusal(), AllOf(StartsWith("server: "), HasSubstr("max_allowed_packet is 8192")));
  execute("SET GLOBAL max_allowed_packet = " + before.substr(0, before.size() - 1));
}

TEST_F(SinkMysqlOpenTest, StartWaitsForAServerThatIsNotUp) {
  services()->kill(server());
  SinkMysql impatient(options_);
  EXPECT_THROW(impatient.open(context_), Transient);
  EXPECT_TRUE(context_.messages().empty());

  options_.wait = std::chrono::minutes(2);
  SinkMysql sink(options_);
  std::exception_ptr failure;
  std::jthread opening([&] {
    try {
      sink.open(context_);
    } catch (...) {
      failure = std::current_exception();
    }
  });
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (context_.messages().empty() && std::chrono::steady_clock::now() < until) {
    std::this_thread::yield();
  }
  services()->start(server());
  opening.join();
  EXPECT_FALSE(failure);
  ASSERT_EQ(context_.messages().size(), 1U);
  EXPECT_THAT(context_.messages()[0].second, HasSubstr("waiting for it"));
}

/// "option: message; ..." of the stage's check.
std::string findings(const MysqlOptions& options) {
  Findings found;
  SinkMysql::check(options, found);
  std::string all;
  for (const auto& finding : found.list()) all += finding.option + ": " + finding.message + "; ";
  return all;
}

TEST(SinkMysqlCheck, OptionsThatContradictEachOther) {
  MysqlOptions options;
  options.server = "mysql://u:p@h/d";
  EXPECT_EQ(findings(options), "");
  options.password = "q";
  EXPECT_EQ(findings(options), "password: there is a password in 'server' already; ");
  options.password = "";
  options.server = "mysql://u:${file:p}@h/d";
  EXPECT_EQ(findings(options), "");
  options.server = "h:3306";
  EXPECT_THAT(findings(options), StartsWith("server: expected mysql://"));
  options.server = "mysql://u@h/d";
  for (const std::string table : {"", "a b", "a`b", "a.b", "\xC3\xA4"}) {
    options.table = table;
    EXPECT_THAT(findings(options), StartsWith("table: ")) << table;
  }
  options.table = std::string(56, 'a');
  EXPECT_THAT(findings(options), StartsWith("table: "));
  options.table = "t";
  options.tls_ca = "ca";
  EXPECT_THAT(findings(options), StartsWith("tls: is off"));
  options.tls = Tls::verify;
  EXPECT_EQ(findings(options), "");
  options.tls_cert = "c";
  EXPECT_THAT(findings(options), StartsWith("tls_key: "));
  options.tls_key = "k";
  EXPECT_EQ(findings(options), "");
  options.tls = Tls::required;
  EXPECT_THAT(findings(options), StartsWith("tls_ca: "));
  options.tls_ca = "";
  EXPECT_EQ(findings(options), "");
  options.tls = Tls::verify;
  EXPECT_THAT(findings(options), StartsWith("tls_ca: is needed"));
}

}  // namespace
}  // namespace millrace
