#include "kafka_fixture.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST_F(SinkKafkaTest, OneMessageForEachSessionWithItsIdAsTheKey) {
  cluster_.topic("sessions");
  const std::vector<std::string> names = {"web", "mail"};
  const std::vector<float> probabilities = {0.25F, 0.75F};
  Verdict full = verdict(2, "ma\"il");
  full.probabilities = probabilities;
  full.class_names = names;
  SinkKafka sink(options());
  sink.open(context_);
  write(sink, {verdict(1), full});
  sink.flush();
  sink.close();
  const auto content = cluster_.content("sessions");
  ASSERT_EQ(content.size(), 2U);
  EXPECT_EQ(content[0].key, "00000000000000000000000000000001");
  EXPECT_EQ(content[0].value, json(verdict(1)));
  EXPECT_EQ(content[1].value, json(full));
  EXPECT_THAT(content[1].value,
              ::testing::EndsWith(R"(,"label":"ma\"il","confidence":0.5000,"model":"m",)"
                                  R"("probabilities":{"web":0.2500,"mail":0.7500}})"));
  EXPECT_EQ(receipts_.done(), 1);
  EXPECT_EQ(context_.handled_items(), 2U);
  EXPECT_EQ(context_.counter("messages").value(), 2U);
  EXPECT_EQ(context_.counter("bytes").value(), content[0].value.size() + content[1].value.size());
}

TEST_F(SinkKafkaTest, EveryCompressionIsReadBack) {
  cluster_.topic("sessions");
  std::uint32_t number = 0;
  for (const Compression compression : {Compression::none, Compression::gzip, Compression::snappy,
                                        Compression::lz4, Compression::zstd}) {
    KafkaOptions packed = options();
    packed.compression = compression;
    SinkKafka sink(packed);
    sink.open(context_);
    write(sink, {verdict(++number)});
    sink.flush();
    sink.close();
  }
  EXPECT_EQ(keys(), keys_of(1, 5));
}

TEST_F(SinkKafkaTest, BatchesAreInFlightBesideEachOtherAndEndInOrder) {
  cluster_.topic("sessions");
  SinkKafka sink(options());
  sink.open(context_);
  rd_kafka_mock_broker_set_rtt(cluster_.get(), 1, 300);
  for (std::uint32_t first = 1; first <= 100; first += 10) {
    write(sink, verdicts(first, first + 9));
  }
  EXPECT_EQ(receipts_.pending(), 10);  // no answer can have come yet
  sink.flush();
  EXPECT_EQ(receipts_.done(), 10);
  sink.close();
  EXPECT_EQ(keys(), keys_of(1, 100));
}

TEST_F(SinkKafkaTest, MessagesOfASessionStayInOrder) {
  constexpr int kPartitions = 4;
  constexpr std::uint32_t kSessions = 20;
  cluster_.topic("sessions", kPartitions);
  SinkKafka sink(options());
  sink.open(context_);
  for (std::uint32_t round = 0; round < 10; ++round) {
    std::vector<Verdict> items = verdicts(0, kSessions - 1);
    for (Verdict& item : items) item.session.packets = round;
    write(sink, std::move(items));
  }
  sink.flush();
  sink.close();
  std::map<std::string, std::vector<std::string>> values;
  std::map<std::string, std::set<std::int32_t>> partitions;
  std::set<std::int32_t> used;
  for (const auto& message : cluster_.content("sessions", kPartitions)) {
    values[message.key].push_back(message.value);
    partitions[message.key].insert(message.partition);
    used.insert(message.partition);
  }
  EXPECT_EQ(values.size(), kSessions);
  EXPECT_GT(used.size(), 1U);
  for (std::uint32_t session = 0; session < kSessions; ++session) {
    std::vector<std::string> expected;
    for (std::uint32_t round = 0; round < 10; ++round) {
      Verdict item = verdict(session);
      item.session.packets = round;
      expected.push_back(json(item));
    }
    EXPECT_EQ(values[to_hex(id(session))], expected);
    EXPECT_EQ(partitions[to_hex(id(session))].size(), 1U);
  }
}

TEST_F(SinkKafkaTest, AFullWindowIsWaitedFor) {
  cluster_.topic("sessions");
  KafkaOptions narrow = options();
  narrow.window = 2;
  SinkKafka sink(narrow);
  sink.open(context_);
  for (std::uint32_t number = 1; number <= 20; ++number) {
    write(sink, {verdict(number)});
    EXPECT_LE(receipts_.pending(), 2);
  }
  write(sink, verdicts(21, 30));  // larger than the window: alone
  EXPECT_EQ(receipts_.pending(), 1);
  sink.flush();
  sink.close();
  EXPECT_EQ(keys(), keys_of(1, 30));
}

TEST_F(SinkKafkaTest, TheBufferCountsWhatBatchesHold) {
  cluster_.topic("sessions");
  KafkaOptions narrow = options();
  narrow.buffer = 1_MiB;
  SinkKafka sink(narrow);
  sink.open(context_);
  for (std::uint32_t number = 1; number <= 5; ++number) {
    Batch<Verdict> heavy = batch({verdict(number)});
    heavy.storage_bytes = 900 * 1024;
    sink.write(heavy);
    EXPECT_EQ(receipts_.pending(), 1);
  }
  sink.flush();
  sink.close();
  EXPECT_EQ(keys(), keys_of(1, 5));
}

TEST_F(SinkKafkaTest, SessionsHaveNoLabel) {
  cluster_.topic("sessions");
  Session session;
  session.info = verdict(7).session;
  Batch<Session> sessions({session});
  Batch<Verdict> converted = unlabelled(sessions);
  SinkKafka sink(options());
  sink.open(context_);
  sink.write(converted);
  sink.flush();
  sink.close();
  ASSERT_EQ(cluster_.content("sessions").size(), 1U);
  EXPECT_THAT(cluster_.content("sessions").front().value, HasSubstr(R"("label":"")"));
}

TEST_F(SinkKafkaTest, OptionsThatDoNotFitAreFound) {
  const auto found = [this](const std::map<std::string, std::string>& properties,
                            const std::string& topic = "sessions") {
    KafkaOptions wrong = options();
    wrong.topic = topic;
    wrong.kafka = properties;
    Findings findings;
    check_kafka_options(wrong, findings);
    std::vector<std::string> list;
    for (const auto& finding : findings.list()) {
      list.push_back(finding.option + ": " + finding.message);
    }
    return list;
  };
  EXPECT_THAT(found({}), IsEmpty());
  EXPECT_THAT(found({{"linger.ms", "20"}, {"acks", "all"}}), IsEmpty());
  EXPECT_THAT(found({{"lingerms", "20"}}), ElementsAre(HasSubstr("kafka: No such configuration")));
  EXPECT_THAT(found({{"compression.type", "lz4"}}),
              ElementsAre("kafka: 'compression.type' is set by the option 'compression'"));
  EXPECT_THAT(found({{"bootstrap.servers", "a:1"}}),
              ElementsAre("kafka: 'bootstrap.servers' is set by the option 'brokers'"));
  EXPECT_THAT(found({{"message.timeout.ms", "5"}}),
              ElementsAre("kafka: 'message.timeout.ms' is this stage's own affair"));
  EXPECT_THAT(found({{"acks", "0"}}), ElementsAre(HasSubstr("kafka: with acks = 0")));
  EXPECT_THAT(found({}, ""), ElementsAre("topic: expected the name of a topic"));
  EXPECT_THAT(found({}, "^a"), ElementsAre(HasSubstr("topic: expected the name of one topic")));
}

}  // namespace
}  // namespace millrace
