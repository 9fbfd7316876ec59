#include "gtid_position.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "column_catalog.h"
#include "statement.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(GtidPositionTest, HoldsTheLastTransactionOfEveryDomain) {
  GtidPosition position = GtidPosition::parse("1-2-3,0-1-27");
  EXPECT_EQ(position.to_string(), "0-1-27,1-2-3");
  position.advance({0, 9, 28});
  position.advance({7, 1, 18446744073709551615U});
  EXPECT_EQ(position.to_string(), "0-9-28,1-2-3,7-1-18446744073709551615");
  EXPECT_EQ(GtidPosition::parse(position.to_string()), position);
  EXPECT_EQ(GtidPosition::parse("").to_string(), "");
}

TEST(GtidPositionTest, SaysWhatIsNone) {
  for (const char* wrong : {"0", "0-1", "0-1-", "0-1-x", "-1-1", "0-1-2-3", "0-1-2,x", "0,1,2",
                            "4294967296-1-1", "0-1-18446744073709551616"}) {
    try {
      const auto position = GtidPosition::parse(wrong);
      ADD_FAILURE() << wrong << " was read as " << position.to_string();
    } catch (const std::invalid_argument& error) {
      EXPECT_THAT(error.what(), HasSubstr("is no GTID position; expected domain-server-sequence"));
    }
  }
}

TEST(StatementTest, Kinds) {
  using Kind = StatementKind;
  EXPECT_EQ(statement_kind("COMMIT"), Kind::commit);
  EXPECT_EQ(statement_kind("rollback"), Kind::roll_back);
  EXPECT_EQ(statement_kind("ROLLBACK TO `a`"), Kind::control);
  EXPECT_EQ(statement_kind("BEGIN"), Kind::control);
  EXPECT_EQ(statement_kind("XA END X'78',X'',1"), Kind::control);
  EXPECT_EQ(statement_kind("SAVEPOINT `a`"), Kind::control);
  EXPECT_EQ(statement_kind(" /* why */ -- so\n# or so\n update t SET a = 1"), Kind::change);
  EXPECT_EQ(statement_kind("(INSERT INTO t VALUES (1))"), Kind::change);
  EXPECT_EQ(statement_kind("REPLACE t VALUES (1)"), Kind::change);
  EXPECT_EQ(statement_kind("ALTER TABLE t ADD COLUMN update_time INT"), Kind::ddl);
  EXPECT_EQ(statement_kind("/* never ends"), Kind::ddl);
  EXPECT_EQ(statement_kind(""), Kind::ddl);
}

TEST(StatementTest, Words) {
  EXPECT_TRUE(has_word("UPDATE `Agent_Config` SET a", "agent_config"));
  EXPECT_TRUE(has_word("update my_agent_config, agent_config", "agent_config"));
  EXPECT_FALSE(has_word("UPDATE agent_config2 SET a", "agent_config"));
  EXPECT_FALSE(has_word("UPDATE my_agent_config SET a", "agent_config"));
  EXPECT_FALSE(has_word("", "agent_config"));
}

TEST(ColumnCatalogTest, MembersOfAnEnum) {
  EXPECT_THAT(members_of("enum('a','it''s','x,y','')"), ElementsAre("a", "it's", "x,y", ""));
  EXPECT_THAT(members_of("set('größe')"), ElementsAre("größe"));
  EXPECT_THAT(members_of("int(11)"), ElementsAre());
}

}  // namespace
}  // namespace millrace
