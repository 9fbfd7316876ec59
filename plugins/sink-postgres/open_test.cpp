#include <thread>

#include "postgres_fixture.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class SinkPostgresOpenTest : public SinkPostgresTest {
 protected:
  [[nodiscard]] std::string relations() const {
    return query(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN "
        "('r', 'v') ORDER BY 1");
  }
};

TEST_F(SinkPostgresOpenTest, TableThatIsMissingIsNamed) {
  options_.create = false;
  EXPECT_EQ(refusal(),
            "table: there is no table 'sessions' in the schemas that are searched (\"$user\", "
            "public); with create = true it is made");
  EXPECT_EQ(relations(), "");
}

TEST_F(SinkPostgresOpenTest, WhatWasMadeFits) {
  EXPECT_EQ(refusal(), "accepted");
  EXPECT_EQ(refusal(), "accepted");
  options_.create = false;
  EXPECT_EQ(refusal(), "accepted");
  EXPECT_EQ(relations(), "sessions;sessions_readable;");
}

TEST_F(SinkPostgresOpenTest, OtherNameOfTheTable) {
  options_.table = "My-$table";
  run({verdict(1, "a")});
  EXPECT_EQ(relations(), "My-$table;My-$table_readable;");
  EXPECT_EQ(query("SELECT label FROM \"My-$table_readable\""), "a;");
}

TEST_F(SinkPostgresOpenTest, SchemaIsTheOneThatIsSearchedFirst) {
  execute("CREATE SCHEMA traffic");
  execute("ALTER DATABASE \"" + database_ + "\" SET search_path = traffic");
  run({verdict(1, "a")});
  EXPECT_EQ(query("SELECT label FROM traffic.sessions_readable"), "a;");
}

TEST_F(SinkPostgresOpenTest, SeveralMakeTheSchemaAtOnce) {
  std::atomic<int> accepted = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] { accepted += refusal() == "accepted" ? 1 : 0; });
    }
  }
  EXPECT_EQ(accepted, 4);
}

TEST_F(SinkPostgresOpenTest, EverythingTheTableLacksIsNamed) {
  struct Case {
    const char* change;
    const char* message;
  };
  for (const Case& wrong : {
           Case{"DROP COLUMN epoch", "column 'epoch' (bigint) is missing"},
           Case{"DROP COLUMN classified_at", "column 'classified_at' (bigint) is missing"},
           Case{"DROP CONSTRAINT sessions_pkey",
                "a unique key of the column 'session' alone is missing"},
           Case{"DROP CONSTRAINT sessions_pkey, ADD UNIQUE (session, src)",
                "a unique key of the column"},
           Case{"DROP CONSTRAINT sessions_pkey, ADD UNIQUE (session) DEFERRABLE",
                "a unique key of the column"},
           Case{"ALTER session TYPE text", "column 'session' is text, expected uuid"},
           Case{"ALTER src TYPE text", "column 'src' is text, expected inet"},
           Case{"ALTER bytes TYPE integer", "column 'bytes' is integer, expected bigint"},
           Case{"ALTER first_seen TYPE timestamptz USING now()",
                "column 'first_seen' is timestamp with time zone, expected bigint"},
           Case{"ALTER confidence SET NOT NULL",
                "column 'confidence' is NOT NULL, expected to take NULL"},
           Case{"DROP COLUMN epoch, ADD COLUMN epoch bigint GENERATED ALWAYS AS IDENTITY",
                "column 'epoch' is GENERATED ALWAYS, expected to take values"},
           Case{"DROP COLUMN bytes, ADD COLUMN bytes bigint GENERATED ALWAYS AS (1) STORED",
                "column 'bytes' is GENERATED ALWAYS, expected to take values"},
           Case{"ADD COLUMN owner int NOT NULL",
                "column 'owner' is none of this stage's, and needs a default"},
           Case{"ALTER reason TYPE varchar(4)",
                "column 'reason' is character varying(4), expected character varying(16)"},
           Case{"SET UNLOGGED", "it is UNLOGGED"},
       }) {
    execute("DROP TABLE IF EXISTS sessions CASCADE");
    options_.create = true;
    ASSERT_EQ(refusal(), "accepted");
    execute("DROP VIEW sessions_readable");
    execute(std::string("ALTER TABLE sessions ") + wrong.change);
    options_.create = false;
    EXPECT_THAT(refusal(), AllOf(StartsWith("table: the table 'sessions' does not fit: "),
                                 HasSubstr(wrong.message)))
        << wrong.change;
  }
  execute("DROP TABLE sessions CASCADE");
  execute("CREATE UNLOGGED TABLE sessions (session uuid)");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("'agent'"), HasSubstr("'label'"), HasSubstr("UNLOGGED"),
                               HasSubstr("unique key")));
}

TEST_F(SinkPostgresOpenTest, CreateChangesNothingThatIsThere) {
  execute("CREATE TABLE sessions (session uuid)");
  EXPECT_THAT(refusal(), AllOf(StartsWith("table: "), HasSubstr("does not exist")));
  execute("CREATE VIEW sessions_readable AS SELECT 1 AS one");
  EXPECT_THAT(refusal(), HasSubstr("column 'agent' (character varying(255)) is missing"));
  EXPECT_EQ(query("SELECT one FROM sessions_readable"), "1;");
}

TEST_F(SinkPostgresOpenTest, TableMayHaveMoreThanIsNeeded) {
  ASSERT_EQ(refusal(), "accepted");
  execute("DROP VIEW sessions_readable");
  execute(
      "ALTER TABLE sessions DROP CONSTRAINT sessions_pkey, "
      "ADD COLUMN id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, ADD UNIQUE (session), "
      "ADD COLUMN note varchar(10), ADD COLUMN stored timestamptz NOT NULL DEFAULT now(), "
      "ADD COLUMN hour bigint GENERATED ALWAYS AS (first_seen / 3600000000000) STORED, "
      "ALTER label TYPE text");
  options_.create = false;
  run({verdict(1, "a"), verdict(1, "a"), verdict(2, "")});
  run({verdict(2, "b")});
  EXPECT_EQ(query("SELECT label FROM sessions ORDER BY session"), "a;b;");
}

TEST_F(SinkPostgresOpenTest, TableMayBePartitioned) {
  ASSERT_EQ(refusal(), "accepted");
  execute("ALTER TABLE sessions RENAME TO one");
  execute("CREATE TABLE sessions (LIKE one INCLUDING ALL) PARTITION BY HASH (session)");
  execute("CREATE TABLE part0 PARTITION OF sessions FOR VALUES WITH (MODULUS 2, REMAINDER 0)");
  execute("CREATE TABLE part1 PARTITION OF sessions FOR VALUES WITH (MODULUS 2, REMAINDER 1)");
  run(verdicts(1, 100, ""));
  run(verdicts(1, 100, "a"));
  EXPECT_EQ(query("SELECT label, count(*) FROM sessions GROUP BY label"), "a;100;");
  EXPECT_EQ(count("labelled"), 100U);
}

TEST_F(SinkPostgresOpenTest, ViewIsNoTable) {
  ASSERT_EQ(refusal(), "accepted");
  options_.table = "sessions_readable";
  options_.create = false;
  EXPECT_THAT(refusal(), HasSubstr("it is no table but a view"));
}

TEST_F(SinkPostgresOpenTest, DatabaseThatCannotHoldEveryText) {
  make_database("TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'");
  EXPECT_EQ(refusal(), "server: the database has the encoding LATIN1, expected UTF8");
}

TEST_F(SinkPostgresOpenTest, WrongPasswordNamesTheOption) {
  execute("CREATE ROLE guarded LOGIN SUPERUSER PASSWORD 'p@ss/:%word'");
  add_rules("host all guarded 127.0.0.1/32 scram-sha-256\n");
  options_.server = url("guarded");
  options_.password = "not-it";
  EXPECT_THAT(refusal(), AllOf(StartsWith("password: postgresql://guarded@127.0.0.1"),
                               HasSubstr("password authentication failed for user \"guarded\" "
                                         "(SQLSTATE 28P01)"),
                               Not(HasSubstr("not-it"))));
  options_.password.clear();
  EXPECT_THAT(refusal(), AllOf(StartsWith("server: "), HasSubstr("no password supplied")));
  options_.server = url("guarded:not-it");
  EXPECT_THAT(refusal(), AllOf(StartsWith("server: "), Not(HasSubstr("not-it"))));
  options_.server = url("guarded:p%40ss%2F%3A%25word");
  EXPECT_EQ(refusal(), "accepted");
  options_.server = url("guarded");
  options_.password = "p@ss/:%word";
  EXPECT_EQ(refusal(), "accepted");
}

TEST_F(SinkPostgresOpenTest, UnknownDatabaseAndUserNameTheOption) {
  options_.server = url("nobody-here");
  EXPECT_THAT(refusal(),
              AllOf(StartsWith("server: "), HasSubstr("role \"nobody-here\" does not exist")));
  database_ = "nowhere";
  options_.server = url("postgres");
  EXPECT_THAT(refusal(), AllOf(StartsWith("server: "),
                               HasSubstr("database \"nowhere\" does not exist (SQLSTATE 3D000)")));
}

TEST_F(SinkPostgresOpenTest, WrongAddressIsTransient) {
  for (const char* address : {"postgresql://u@127.0.0.1:1/d", "postgresql://u@no.invalid/d"}) {
    options_.server = address;
    SinkPostgres sink(options_);
    try {
      sink.open(context_);
      FAIL() << "nobody is there";
    } catch (const Transient& error) {
      EXPECT_THAT(error.what(), StartsWith("postgresql://u@"));
    }
  }
}

TEST_F(SinkPostgresOpenTest, MissingRightsShowAtTheStart) {
  execute("CREATE ROLE reader LOGIN");
  options_.server = url("reader");
  EXPECT_THAT(refusal(), AllOf(StartsWith("table: "),
                               HasSubstr("permission denied for schema public (SQLSTATE 42501)")));
  options_.server = url("postgres");
  ASSERT_EQ(refusal(), "accepted");
  execute("GRANT SELECT ON sessions TO reader");
  options_.server = url("reader");
  EXPECT_THAT(refusal(), HasSubstr("permission denied for table sessions"));
  execute("GRANT INSERT ON sessions TO reader");
  EXPECT_THAT(refusal(), HasSubstr("permission denied for table sessions"));
  execute("GRANT UPDATE ON sessions TO reader");
  EXPECT_EQ(refusal(), "accepted");  // create = true needs no right where everything is there
}

TEST_F(SinkPostgresOpenTest, UnixSocket) {
  const std::string folder = services()->folder() / "postgres";
  options_.server = "postgresql://postgres@/" + database_ + "?host=" + folder +
                    "&port=" + std::to_string(services()->port("postgres"));
  run({verdict(1, "a")});
  EXPECT_EQ(query("SELECT count(*) FROM sessions"), "1;");
  options_.server = "postgresql://postgres@/" + database_ + "?host=" + folder + "&port=1";
  SinkPostgres sink(options_);
  EXPECT_THROW(sink.open(context_), Transient);
}

TEST_F(SinkPostgresOpenTest, StartWaitsForAServerThatIsNotUp) {
  services()->kill("postgres");
  SinkPostgres impatient(options_);
  EXPECT_THROW(impatient.open(context_), Transient);
  EXPECT_TRUE(context_.messages().empty());

  options_.wait = std::chrono::minutes(2);
  SinkPostgres sink(options_);
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
  services()->start("postgres");
  opening.join();
  EXPECT_FALSE(failure);
  ASSERT_EQ(context_.messages().size(), 1U);
  EXPECT_THAT(context_.messages()[0].second, HasSubstr("waiting for it"));
}

/// "option: message; ..." of the stage's check.
std::string findings(const PostgresOptions& options) {
  Findings found;
  SinkPostgres::check(options, found);
  std::string all;
  for (const auto& finding : found.list()) all += finding.option + ": " + finding.message + "; ";
  return all;
}

TEST(SinkPostgresCheck, OptionsThatContradictEachOther) {
  PostgresOptions options;
  options.server = "postgresql://u:p@h/d";
  EXPECT_EQ(findings(options), "");
  options.password = "q";
  EXPECT_EQ(findings(options), "password: there is a password in 'server' already; ");
  options.password = "";
  options.server = "postgresql://u:${file:p}@h/d";
  EXPECT_EQ(findings(options), "");
  options.server = "mysql://u@h:3306/d";
  EXPECT_THAT(findings(options), StartsWith("server: expected postgresql://"));
  options.server = "postgresql://u@/d?host=/run";
  options.tls = Tls::required;
  EXPECT_THAT(findings(options), StartsWith("tls: a unix socket"));
  options.tls = Tls::off;
  options.server = "postgresql://u@h/d";
  for (const std::string table : {"", "a b", "a\"b", "a.b", "\xC3\xA4"}) {
    options.table = table;
    EXPECT_THAT(findings(options), StartsWith("table: ")) << table;
  }
  options.table = std::string(55, 'a');
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
