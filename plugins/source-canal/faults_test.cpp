#include "kafka_fixture.h"

namespace millrace {

namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class FaultsTest : public KafkaTest {
 protected:
  /// What `open` refuses, as "option: message".
  std::string refusal(const CanalOptions& options) {
    testing::TestContext context;
    SourceCanal source(options);
    try {
      source.open(context);
    } catch (const ConfigError& error) {
      return error.option() + ": " + error.what();
    }
    source.close();
    return "none";
  }
};

TEST_F(FaultsTest, AFailedBatchIsReadAgainWithAllAfterIt) {
  cluster.topic("changes");
  produce(1, 3);
  CanalOptions single = options();
  single.batch = 1;
  out.set(Collector::Receipts::hold);
  RunningSource source(single, out);
  ASSERT_TRUE(eventually([&] { return out.held() == 3; }));
  out.set(Collector::Receipts::done);
  out.resolve(0, Outcome::done);
  out.resolve(1, Outcome::failed);
  ASSERT_TRUE(eventually([&] { return out.count() >= 5; }));
  EXPECT_THAT(out.seen(), ElementsAre("1", "2", "3", "2", "3"));
  EXPECT_TRUE(eventually([&] { return cluster.committed("millrace", "changes") == 3; }));
  EXPECT_TRUE(source.logged("partition 0 is read again from offset 1"));
  produce(4, 4);
  ASSERT_TRUE(eventually([&] { return out.count() >= 6; }));
  EXPECT_EQ(out.seen().back(), "4");
  out.resolve(2, Outcome::done);  // the third batch of before: of no effect
  source.stop();
  EXPECT_EQ(source.context.counter("read-again").value(), 1U);
  EXPECT_EQ(cluster.committed("millrace", "changes"), 4);
}

TEST_F(FaultsTest, ABatchThatFailsForEverIsNeverCommitted) {
  cluster.topic("changes");
  produce(1, 1);
  CanalOptions quick = options();
  quick.finish = 0ms;
  out.set(Collector::Receipts::hold);
  RunningSource source(quick, out);
  for (std::size_t round = 1; round <= 3; ++round) {
    ASSERT_TRUE(eventually([&] { return out.count() == round; }));
    out.resolve_all(Outcome::failed);
  }
  source.stop();
  EXPECT_EQ(cluster.committed("millrace", "changes"), -1);
  EXPECT_GE(source.context.counter("read-again").value(), 2U);
}

TEST_F(FaultsTest, AnotherMemberTakesOverAndNothingIsLost) {
  cluster.topic("changes", 2);
  produce(1, 5, 0);
  produce(11, 15, 1);
  CanalOptions quick = options();
  quick.finish = 5s;
  RunningSource first(quick, out);
  ASSERT_TRUE(eventually([&] { return out.count() >= 10; }));
  // The mock cluster takes no commit while a rebalance is under way.
  ASSERT_TRUE(eventually([&] {
    return cluster.committed("millrace", "changes", 0) == 5 &&
           cluster.committed("millrace", "changes", 1) == 5;
  }));
  Collector other;
  RunningSource second(quick, other);
  ASSERT_TRUE(eventually([&] { return second.logged("reads topic"); }));
  ASSERT_TRUE(eventually([&] { return first.context.counter("rebalances").value() >= 2; }));
  produce(21, 25, 0);
  produce(31, 35, 1);
  const auto all = [&] {
    std::vector<std::string> list = out.seen();
    const std::vector<std::string> more = other.seen();
    list.insert(list.end(), more.begin(), more.end());
    std::sort(list.begin(), list.end());
    return list;
  };
  ASSERT_TRUE(eventually([&] { return all().size() >= 20; }));
  // What the first one had committed does not come again.
  EXPECT_EQ(all().size(), 20U);
  EXPECT_EQ(other.count(), 5U);
  // One that ends leaves the group: the other goes on with all partitions without a time-out.
  first.stop();
  produce(41, 41, 0);
  produce(42, 42, 1);
  EXPECT_TRUE(eventually([&] {
    const std::vector<std::string> seen = other.seen();
    return std::count(seen.begin(), seen.end(), "41") != 0 &&
           std::count(seen.begin(), seen.end(), "42") != 0;
  }));
}

TEST_F(FaultsTest, ABrokerThatIsAwayIsWaitedFor) {
  cluster.topic("changes");
  produce(1, 2);
  RunningSource source(options(), out);
  ASSERT_TRUE(eventually([&] { return out.count() == 2; }));
  rd_kafka_mock_broker_set_down(cluster.get(), 1);
  ASSERT_TRUE(eventually([&] { return source.logged("can be reached for"); }));
  rd_kafka_mock_broker_set_up(cluster.get(), 1);
  produce(3, 4);
  ASSERT_TRUE(eventually([&] { return out.count() == 4; }));
  EXPECT_TRUE(eventually([&] { return source.context.counter("reconnects").value() >= 1; }));
  EXPECT_TRUE(eventually([&] { return cluster.committed("millrace", "changes") == 4; }));
}

TEST_F(FaultsTest, ItEndsInTimeAlthoughTheBrokerIsAway) {
  cluster.topic("changes");
  produce(1, 1);
  CanalOptions quick = options();
  quick.finish = 500ms;
  quick.commit_every = 1h;
  RunningSource source(quick, out);
  ASSERT_TRUE(eventually([&] { return out.count() == 1; }));
  ASSERT_TRUE(eventually([&] { return cluster.committed("millrace", "changes") == 1; }));
  produce(2, 2);
  ASSERT_TRUE(eventually([&] { return out.count() == 2; }));
  rd_kafka_mock_broker_set_down(cluster.get(), 1);
  ASSERT_TRUE(eventually([&] { return source.logged("can be reached for"); }));
  const auto begun = std::chrono::steady_clock::now();
  source.stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begun, 10s);
  EXPECT_TRUE(source.logged("the last offsets are not committed"));
}

TEST_F(FaultsTest, ACommitThatTheBrokerRefusesIsMadeAgain) {
  cluster.topic("changes");
  RunningSource source(options(), out);
  ASSERT_TRUE(eventually([&] { return source.logged("reads topic"); }));
  constexpr std::int16_t kOffsetCommit = 8;
  rd_kafka_mock_push_request_errors(cluster.get(), kOffsetCommit, 1,
                                    RD_KAFKA_RESP_ERR_INVALID_COMMIT_OFFSET_SIZE);
  produce(1, 1);
  ASSERT_TRUE(eventually([&] { return source.logged("offsets are not committed yet"); }));
  EXPECT_TRUE(eventually([&] { return cluster.committed("millrace", "changes") == 1; }));
}

TEST_F(FaultsTest, TheStartWaitsForATopic) {
  cluster.topic("changes");
  rd_kafka_mock_topic_set_error(cluster.get(), "changes", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
  testing::TestContext context;
  SourceCanal source(options());
  std::jthread later([&] {
    eventually([&] { return !context.messages().empty(); });
    rd_kafka_mock_topic_set_error(cluster.get(), "changes", RD_KAFKA_RESP_ERR_NO_ERROR);
  });
  source.open(context);
  source.close();
  ASSERT_FALSE(context.messages().empty());
  EXPECT_THAT(context.messages().front().second, HasSubstr("topic 'changes': Broker: Unknown"));
}

TEST_F(FaultsTest, AWrongTopicOrBrokerIsAnErrorOfItsOption) {
  cluster.topic("changes");
  CanalOptions wrong = options();
  wrong.wait = 300ms;
  wrong.topics = {"changes", "nothing"};
  // The mock cluster would make it.
  rd_kafka_mock_topic_set_error(cluster.get(), "nothing", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
  EXPECT_THAT(refusal(wrong), HasSubstr("topics: topic 'nothing': Broker: Unknown topic"));

  rd_kafka_mock_topic_set_error(cluster.get(), "secret",
                                RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
  CanalOptions forbidden = options();
  forbidden.wait = 1h;  // no use in waiting
  forbidden.topics = {"secret"};
  EXPECT_THAT(refusal(forbidden), HasSubstr("topics: topic 'secret': Broker: Topic authorization"));

  CanalOptions nobody = options();
  nobody.wait = 300ms;
  nobody.brokers = "127.0.0.1:1";
  EXPECT_THAT(refusal(nobody), HasSubstr("brokers: no answer from 127.0.0.1:1"));

  CanalOptions bad_file = options();
  bad_file.kafka = {{"security.protocol", "ssl"}, {"ssl.ca.location", "/nowhere/ca.pem"}};
  EXPECT_THAT(refusal(bad_file), HasSubstr("kafka: "));
}

TEST_F(FaultsTest, AGroupThatIsForbiddenEndsTheRun) {
  cluster.topic("changes");
  constexpr std::int16_t kJoinGroup = 11;
  constexpr int kOften = 20;
  const std::vector<rd_kafka_resp_err_t> errors(kOften,
                                                RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED);
  rd_kafka_mock_push_request_errors_array(cluster.get(), kJoinGroup, errors.size(), errors.data());
  RunningSource source(options(), out);
  ASSERT_TRUE(eventually([&] { return source.ended(); }));
  source.stop();
  EXPECT_THAT(source.failure(), HasSubstr("the brokers refuse this consumer"));
}

}  // namespace

}  // namespace millrace
