#include "kafka_fixture.h"

namespace millrace {

namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAreArray;

class SourceCanalTest : public KafkaTest {};

TEST_F(SourceCanalTest, GivesChangesOnInOrderAndCommitsThem) {
  cluster.topic("changes");
  produce(1, 20);
  RunningSource source(options(), out);
  ASSERT_TRUE(eventually([&] { return out.count() >= 20; }));
  EXPECT_EQ(out.seen(), ids(1, 20));
  EXPECT_TRUE(eventually([&] { return cluster.committed("millrace", "changes") == 20; }));
  source.stop();
  EXPECT_EQ(source.failure(), "");
  EXPECT_EQ(source.context.counter("messages").value(), 20U);
}

TEST_F(SourceCanalTest, ARestartGoesOnWhereTheLastOneWas) {
  cluster.topic("changes");
  produce(1, 3);
  {
    RunningSource source(options(), out);
    ASSERT_TRUE(eventually([&] { return out.count() >= 3; }));
  }
  EXPECT_EQ(cluster.committed("millrace", "changes"), 3);
  produce(4, 5);
  RunningSource source(options(), out);
  ASSERT_TRUE(eventually([&] { return out.count() >= 5; }));
  EXPECT_EQ(out.seen(), ids(1, 5));
}

TEST_F(SourceCanalTest, NothingIsCommittedBeforeItIsDelivered) {
  cluster.topic("changes");
  produce(1, 2);
  CanalOptions slow = options();
  slow.batch = 1;
  slow.finish = 0ms;
  out.set(Collector::Receipts::hold);
  {
    RunningSource source(slow, out);
    ASSERT_TRUE(eventually([&] { return out.held() == 2; }));
    out.resolve(1, Outcome::done);
    source.stop();
  }
  EXPECT_EQ(cluster.committed("millrace", "changes"), -1);
  out.resolve_all(Outcome::done);  // too late, and of no harm
  out.set(Collector::Receipts::done);
  RunningSource source(slow, out);
  ASSERT_TRUE(eventually([&] { return out.count() >= 4; }));
  EXPECT_THAT(out.seen(), ElementsAre("1", "2", "1", "2"));
  EXPECT_TRUE(eventually([&] { return cluster.committed("millrace", "changes") == 2; }));
}

TEST_F(SourceCanalTest, WhatIsDeliveredWhileItEndsIsCommitted) {
  cluster.topic("changes");
  produce(1, 2);
  out.set(Collector::Receipts::hold);
  RunningSource source(options(), out);
  ASSERT_TRUE(eventually([&] { return out.count() == 2; }));
  std::jthread later([&] { out.resolve_all(Outcome::done); });
  source.stop();
  EXPECT_EQ(cluster.committed("millrace", "changes"), 2);
}

TEST_F(SourceCanalTest, LatestBeginsAtTheEnd) {
  cluster.topic("changes");
  produce(1, 2);
  CanalOptions latest = options();
  latest.start = StartAt::latest;
  RunningSource source(latest, out);
  ASSERT_TRUE(eventually([&] { return source.logged("reads topic 'changes', partition 0"); }));
  // The end is looked up after the assignment; what is written before that is not seen.
  int next = 100;
  ASSERT_TRUE(eventually([&] {
    produce(next, next);
    ++next;
    return out.count() > 0;
  }));
  EXPECT_GE(std::stoi(out.seen().front()), 100);
}

TEST_F(SourceCanalTest, OtherTablesAndWhatIsNoRowAreCounted) {
  cluster.topic("changes");
  cluster.produce("changes", inserted(1));
  cluster.produce("changes", inserted(2, "other"));
  cluster.produce("changes", R"({"isDdl":true,"database":"d","table":"t","type":"ALTER"})");
  cluster.produce("changes", R"({"isDdl":false,"database":"d","table":"t","type":"QUERY"})");
  cluster.produce("changes", "", 0, true);
  CanalOptions some = options();
  some.tables = {"d.t", "e.other"};
  RunningSource source(some, out);
  EXPECT_TRUE(eventually([&] { return cluster.committed("millrace", "changes") == 5; }));
  source.stop();
  EXPECT_EQ(out.seen(), ids(1, 1));
  const std::map<std::string, std::uint64_t> expected = {
      {"table", 1}, {"ddl", 1}, {"other-type", 1}, {"tombstone", 1}};
  EXPECT_EQ(source.context.all_dropped(), expected);
}

TEST_F(SourceCanalTest, OtherFormats) {
  cluster.topic("debezium");
  cluster.topic("maxwell");
  cluster.produce("debezium",
                  R"({"before":null,"after":{"id":7},"source":{"db":"d","table":"t"},"op":"c"})");
  cluster.produce("maxwell", R"({"database":"d","table":"t","type":"insert","data":{"id":8}})");
  for (const auto& [format, topic, id] : {std::tuple(MessageFormat::debezium, "debezium", "7"),
                                          std::tuple(MessageFormat::maxwell, "maxwell", "8")}) {
    CanalOptions other = options();
    other.format = format;
    other.topics = {topic};
    Collector changes;
    RunningSource source(other, changes);
    ASSERT_TRUE(eventually([&] { return changes.count() == 1; }));
    EXPECT_THAT(changes.seen(), ElementsAre(id));
  }
}

TEST_F(SourceCanalTest, SeveralTopicsAndPatterns) {
  cluster.topic("changes-a");
  cluster.topic("changes-b");
  cluster.topic("more");
  cluster.produce("changes-a", inserted(1));
  cluster.produce("changes-b", inserted(2));
  cluster.produce("more", inserted(3));
  CanalOptions several = options();
  several.topics = {"^changes-.*", "more"};
  RunningSource source(several, out);
  ASSERT_TRUE(eventually([&] { return out.count() >= 3; }));
  EXPECT_THAT(out.seen(), UnorderedElementsAreArray(ids(1, 3)));
}

TEST_F(SourceCanalTest, RowsOfOneMessageStayTogether) {
  cluster.topic("changes");
  cluster.produce("changes",
                  R"({"data":[{"id":"1"},{"id":"2"},{"id":"3"}],"database":"d","table":"t",)"
                  R"("type":"INSERT"})");
  CanalOptions small = options();
  small.batch = 1;
  out.set(Collector::Receipts::hold);
  RunningSource source(small, out);
  ASSERT_TRUE(eventually([&] { return out.count() == 3; }));
  EXPECT_EQ(out.held(), 1U);
}

TEST_F(SourceCanalTest, AFullWindowStopsTheReading) {
  cluster.topic("changes");
  produce(1, 10);
  CanalOptions narrow = options();
  narrow.batch = 1;
  narrow.window = 2;
  out.set(Collector::Receipts::hold);
  RunningSource source(narrow, out);
  ASSERT_TRUE(eventually([&] { return out.held() == 2; }));
  // Long enough that the partitions are paused, by the stage's own clock.
  const auto begun = std::chrono::steady_clock::now();
  ASSERT_TRUE(eventually([&] { return std::chrono::steady_clock::now() - begun > 1500ms; }));
  EXPECT_EQ(out.count(), 2U);
  out.set(Collector::Receipts::done);
  out.resolve_all(Outcome::done);
  ASSERT_TRUE(eventually([&] { return out.count() >= 10; }));
  EXPECT_EQ(out.seen(), ids(1, 10));
  EXPECT_TRUE(eventually([&] { return cluster.committed("millrace", "changes") == 10; }));
}

TEST_F(SourceCanalTest, UnreadableMessagesAreCountedNamedAndPassed) {
  cluster.topic("changes");
  produce(1, 1);
  cluster.produce("changes", "{broken");
  produce(2, 2);
  cluster.produce("changes", "[]");
  RunningSource source(options(), out);
  EXPECT_TRUE(eventually([&] { return cluster.committed("millrace", "changes") == 4; }));
  source.stop();
  EXPECT_EQ(out.seen(), ids(1, 2));
  EXPECT_EQ(source.context.dropped_for("unreadable"), 2U);
  EXPECT_TRUE(source.logged("topic 'changes', partition 0, offset 1 cannot be read: no JSON"));
  EXPECT_TRUE(source.logged("offset 3 cannot be read: no JSON object"));
}

TEST_F(SourceCanalTest, AnUnreadableMessageMayEndTheRunAndIsTheNextOnesFirst) {
  cluster.topic("changes");
  produce(1, 2);
  cluster.produce("changes", "{broken");
  produce(3, 3);
  CanalOptions strict = options();
  strict.on_bad = OnBad::stop;
  {
    RunningSource source(strict, out);
    ASSERT_TRUE(eventually([&] { return source.ended(); }));
    source.stop();
    EXPECT_THAT(source.failure(), HasSubstr("partition 0, offset 2 cannot be read: no JSON"));
    EXPECT_THAT(source.context.all_dropped(), IsEmpty());
  }
  EXPECT_EQ(out.seen(), ids(1, 2));
  EXPECT_EQ(cluster.committed("millrace", "changes"), 2);
  RunningSource source(options(), out);
  ASSERT_TRUE(eventually([&] { return out.count() == 3; }));
  EXPECT_EQ(source.context.dropped_for("unreadable"), 1U);
}

std::string finding(const CanalOptions& options) {
  Findings findings;
  check_canal_options(options, findings);
  if (findings.list().empty()) return "none";
  return findings.list().front().option + ": " + findings.list().front().message;
}

TEST(CanalOptionsTest, WhatCannotWorkIsFoundBeforeTheStart) {
  CanalOptions good;
  good.topics = {"t"};
  good.kafka = {{"security.protocol", "ssl"}, {"ssl.ca.location", "/nowhere"}};
  EXPECT_EQ(finding(good), "none");

  CanalOptions bad = good;
  bad.tables = {"d.t", "t"};
  EXPECT_EQ(finding(bad), "tables: 't' is not of the form database.table");
  bad = good;
  bad.topics = {};
  EXPECT_THAT(finding(bad), HasSubstr("topics: expected the name of a topic"));
  bad = good;
  bad.group = "";
  EXPECT_THAT(finding(bad), HasSubstr("group: expected"));
  bad = good;
  bad.kafka = {{"security.protokol", "ssl"}};
  EXPECT_EQ(finding(bad), "kafka: No such configuration property: \"security.protokol\"");
  bad.kafka = {{"security.protocol", "tls"}};
  EXPECT_THAT(finding(bad), HasSubstr("kafka: Invalid value \"tls\" for configuration property "
                                      "\"security.protocol\""));
  bad.kafka = {{"group.id", "x"}};
  EXPECT_EQ(finding(bad), "kafka: 'group.id' is set by the option 'group'");
  bad.kafka = {{"enable.auto.commit", "true"}};
  EXPECT_EQ(finding(bad), "kafka: 'enable.auto.commit' is this stage's own affair");
}

}  // namespace

}  // namespace millrace
