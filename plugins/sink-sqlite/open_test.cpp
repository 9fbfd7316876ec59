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
  ASSERT_EQ(query("PRAGMA user_version = 2"), "");
  EXPECT_THAT(refusal(), HasSubstr("no such table: sessions"));
  ASSERT_EQ(query("PRAGMA user_version = 1"), "");
  EXPECT_THAT(refusal(), HasSubstr("no such view: sessions_readable"));
  EXPECT_EQ(query("SELECT name FROM sqlite_master"), "mine;");
}

TEST_F(SinkSqliteTest, DatabaseOfVersion1IsTakenOver) {
  run({verdict(1, "a"), verdict(2, "")});
  ASSERT_EQ(query(R"sql(
    DROP VIEW sessions_readable;
    DROP INDEX sessions_by_label;
    ALTER TABLE sessions RENAME TO sessions_2;
    CREATE TABLE sessions (
      session TEXT PRIMARY KEY NOT NULL, protocol TEXT NOT NULL, src TEXT NOT NULL,
      src_port INTEGER NOT NULL, dst TEXT NOT NULL, dst_port INTEGER NOT NULL,
      first_seen INTEGER NOT NULL, last_seen INTEGER NOT NULL, packets INTEGER NOT NULL,
      bytes INTEGER NOT NULL, payload_bytes INTEGER NOT NULL, reason TEXT NOT NULL,
      label TEXT NOT NULL, confidence REAL, model TEXT NOT NULL, model_version TEXT NOT NULL
    ) WITHOUT ROWID;
    INSERT INTO sessions SELECT * FROM sessions_2;
    DROP TABLE sessions_2;
    CREATE INDEX sessions_by_time ON sessions (first_seen);
    CREATE INDEX sessions_by_label ON sessions (label, first_seen);
    CREATE VIEW sessions_readable AS SELECT session FROM sessions;
    PRAGMA user_version = 1;
  )sql"),
            "");
  run({verdict(1, "other"), verdict(2, "b"), verdict(3, "c")});
  EXPECT_EQ(query("PRAGMA user_version"), "2;");
  EXPECT_EQ(query("SELECT substr(session, 1, 2), label FROM sessions ORDER BY 1"),
            "01;a;02;b;03;c;");
  EXPECT_EQ(query("SELECT count(confidence) FROM sessions_readable"), "3;");
  EXPECT_EQ(query("SELECT name FROM sqlite_master WHERE name LIKE 'sessions%' ORDER BY 1"),
            "sessions;sessions_by_label;sessions_readable;");
  EXPECT_EQ(query("PRAGMA integrity_check"), "ok;");
}

TEST_F(SinkSqliteTest, OtherSchemaVersionIsNamed) {
  run({verdict(1, "a")});
  ASSERT_EQ(query("PRAGMA user_version = 3"), "");
  EXPECT_THAT(refusal(), HasSubstr("schema version 3, 1 tables; expected one of this stage (schema "
                                   "version 2)"));
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
