#include <fstream>

#include "sqlite_fixture.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST_F(SinkSqliteTest, DatabaseThatIsLockedAtTheStartIsNoConfigurationError) {
  options_.busy_timeout = Duration(0);
  Other other(options_.path);
  ASSERT_EQ(other.query("BEGIN IMMEDIATE"), "");
  EXPECT_THROW(testing::Driven<SinkSqlite>(context_, options_), Transient);
}

TEST_F(SinkSqliteTest, FileThatIsNoDatabaseIsLeftAlone) {
  const std::string text = "this is no database, but a text that is long enough to be looked at";
  std::ofstream(options_.path) << text;
  EXPECT_THAT(refusal(), AllOf(HasSubstr("'" + options_.path + "': file is not a database"),
                               HasSubstr("expected a database of this stage")));
  std::ifstream file(options_.path);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), text);
}

TEST_F(SinkSqliteTest, DatabaseOfSomethingElseIsLeftAlone) {
  ASSERT_EQ(query("CREATE TABLE mine (x)"), "");
  EXPECT_THAT(refusal(), HasSubstr("schema version 0, 1 tables"));
  EXPECT_EQ(query("SELECT name FROM sqlite_master"), "mine;");
  ASSERT_EQ(query("PRAGMA user_version = 3"), "");
  EXPECT_THAT(refusal(), HasSubstr("no such table: sessions"));
  ASSERT_EQ(query("PRAGMA user_version = 2"), "");
  EXPECT_THAT(refusal(), HasSubstr("no such view: sessions_readable"));
  ASSERT_EQ(query("PRAGMA user_version = 1"), "");
  EXPECT_THAT(refusal(), HasSubstr("no such index: sessions_by_time"));
  EXPECT_EQ(query("SELECT name FROM sqlite_master"), "mine;");
}

/// As versions 1 and 2 had it: without agent and epoch; version 1 with another primary key.
class EarlierVersionTest : public SinkSqliteTest, public ::testing::WithParamInterface<int> {};

TEST_P(EarlierVersionTest, IsTakenOver) {
  const bool first = GetParam() == 1;
  const std::string columns =
      "session TEXT NOT NULL, protocol TEXT NOT NULL, src TEXT NOT NULL, src_port INTEGER NOT "
      "NULL, "
      "dst TEXT NOT NULL, dst_port INTEGER NOT NULL, first_seen INTEGER NOT NULL, last_seen "
      "INTEGER "
      "NOT NULL, packets INTEGER NOT NULL, bytes INTEGER NOT NULL, payload_bytes INTEGER NOT NULL, "
      "reason TEXT NOT NULL, label TEXT NOT NULL, confidence REAL, model TEXT NOT NULL, "
      "model_version TEXT NOT NULL";
  ASSERT_EQ(query("CREATE TABLE sessions (" + columns + ", PRIMARY KEY (" +
                  (first ? "session" : "first_seen, session") + ")) WITHOUT ROWID;" +
                  (first ? "CREATE INDEX sessions_by_time ON sessions (first_seen);" : "") +
                  "CREATE INDEX sessions_by_label ON sessions (label, first_seen);"
                  "CREATE VIEW sessions_readable AS SELECT session FROM sessions;"
                  "PRAGMA user_version = " +
                  std::to_string(GetParam())),
            "");
  for (const Verdict& v : {verdict(1, "a"), verdict(2, "")}) {
    ASSERT_EQ(
        query("INSERT INTO sessions VALUES ('" + to_hex(v.session.id) +
              "', 'udp', '::', 0, '::', 0, 0, 0, 1, 2, 3, 'full', '" + std::string(v.label) +
              "', 0.5, '" + std::string(v.model) + "', '" + std::string(v.model_version) + "')"),
        "");
  }
  Verdict third = verdict(3, "c");
  third.session.agent = "probe";
  third.session.epoch = 2;
  run({verdict(1, "other"), verdict(2, "b"), third});
  EXPECT_EQ(query("PRAGMA user_version"), "3;");
  EXPECT_EQ(query("SELECT substr(session, 1, 2), label, agent, epoch FROM sessions ORDER BY 1"),
            "01;a;NULL;NULL;02;b;NULL;NULL;03;c;probe;2;");
  EXPECT_EQ(
      query("SELECT bytes, payload_bytes, reason, model_version FROM sessions WHERE label = 'a'"),
      "2;3;full;7;");
  EXPECT_EQ(query("SELECT count(confidence), count(agent) FROM sessions_readable"), "3;1;");
  EXPECT_EQ(query("SELECT name FROM sqlite_master WHERE name LIKE 'sessions%' ORDER BY 1"),
            "sessions;sessions_by_label;sessions_readable;");
  EXPECT_EQ(query("PRAGMA integrity_check"), "ok;");
}

INSTANTIATE_TEST_SUITE_P(SchemaVersions, EarlierVersionTest, ::testing::Values(1, 2));

TEST_F(SinkSqliteTest, OtherSchemaVersionIsNamed) {
  run({verdict(1, "a")});
  ASSERT_EQ(query("PRAGMA user_version = 4"), "");
  EXPECT_THAT(refusal(), HasSubstr("schema version 4, 1 tables; expected one of this stage (schema "
                                   "version 3)"));
}

TEST_F(SinkSqliteTest, PlaceThatCannotHoldADatabaseIsNamed) {
  options_.path = folder_ / "missing" / "s.db";
  EXPECT_EQ(refusal(), "the folder '" + (folder_ / "missing").string() + "' does not exist");
  options_.path = folder_;
  EXPECT_THAT(refusal(), HasSubstr("is a folder"));
}

/// Gives up root's rights for as long as it lives: root may write everywhere.
class AsNobody {
 public:
  AsNobody() : before_(::geteuid()) {
    constexpr uid_t kNobody = 65534;
    if (before_ == 0) {
      EXPECT_EQ(::seteuid(kNobody), 0);
    }
  }
  AsNobody(const AsNobody&) = delete;
  AsNobody& operator=(const AsNobody&) = delete;
  ~AsNobody() { EXPECT_EQ(::seteuid(before_), 0); }

 private:
  uid_t before_;
};

TEST_F(SinkSqliteTest, FolderThatMayNotBeWrittenIsNamed) {
  fs::permissions(folder_, fs::perms{0555});
  std::string said;
  {
    const AsNobody nobody;
    said = refusal();
  }
  fs::permissions(folder_, fs::perms::owner_all);
  EXPECT_EQ(said, "the folder '" + folder_.string() + "' cannot be written: Permission denied");
}

TEST_F(SinkSqliteTest, FileThatMayOnlyBeReadIsNamed) {
  run({verdict(1, "a")});
  fs::permissions(folder_, fs::perms::all);
  fs::permissions(options_.path, fs::perms{0444});
  const AsNobody nobody;
  EXPECT_EQ(refusal(), "'" + options_.path + "' may only be read by this user");
}

TEST(SinkSqliteCheck, PathsThatStoreNothingAreFound) {
  Findings findings;
  SinkSqlite::check({.path = ""}, findings);
  SinkSqlite::check({.path = ":memory:"}, findings);
  SinkSqlite::check({.path = "s.db"}, findings);
  ASSERT_EQ(findings.list().size(), 2U);
  EXPECT_EQ(findings.list()[0].option, "path");
}

}  // namespace
}  // namespace millrace
