#include "kafka_fixture.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

class SinkKafkaFaultsTest : public SinkKafkaTest {
 protected:
  /// What `open` refuses, as "option: message".
  std::string refusal(const KafkaOptions& options) {
    SinkKafka sink(options);
    try {
      sink.open(context_);
    } catch (const ConfigError& error) {
      return error.option() + ": " + error.what();
    }
    sink.close();
    return "none";
  }
  /// What `call` throws that is no Transient.
  template <class Call>
  std::string failure(Call call) {
    std::string text;
    EXPECT_TRUE(eventually([&] {
      try {
        call();
      } catch (const Transient&) {
        return false;
      } catch (const std::exception& error) {
        text = error.what();
        return true;
      }
      return false;
    }));
    return text;
  }
  static std::string transient(SinkKafka& sink) {
    try {
      sink.flush();
    } catch (const Transient& error) {
      return error.what();
    }
    return "none";
  }
};

TEST_F(SinkKafkaFaultsTest, ABrokerThatIsAwayIsWaitedForAndNothingComesTwice) {
  cluster_.topic("sessions");
  SinkKafka sink(options());
  sink.open(context_);
  write(sink, verdicts(1, 3));
  sink.flush();
  rd_kafka_mock_broker_set_down(cluster_.get(), 1);
  write(sink, verdicts(4, 6));
  write(sink, verdicts(7, 9));
  ASSERT_TRUE(eventually([&] { return logged("can be reached for"); }));
  EXPECT_EQ(receipts_.done(), 1);
  EXPECT_EQ(receipts_.pending(), 2);
  EXPECT_THAT(transient(sink), HasSubstr("6 messages wait to be acknowledged: no broker of "));
  rd_kafka_mock_broker_set_up(cluster_.get(), 1);
  flush(sink);
  EXPECT_EQ(receipts_.done(), 3);
  EXPECT_TRUE(eventually([&] { return context_.counter("reconnects").value() >= 1; }));
  sink.close();
  EXPECT_EQ(keys(), keys_of(1, 9));
}

TEST_F(SinkKafkaFaultsTest, AFullWindowIsAPassingErrorWhileTheBrokerIsAway) {
  cluster_.topic("sessions");
  KafkaOptions narrow = options();
  narrow.window = 4;
  SinkKafka sink(narrow);
  sink.open(context_);
  rd_kafka_mock_broker_set_down(cluster_.get(), 1);
  write(sink, verdicts(1, 3));
  Batch<Verdict> next = batch(verdicts(4, 6));
  std::string why;
  ASSERT_TRUE(eventually([&] {
    try {
      sink.write(next);
    } catch (const Transient& error) {
      why = error.what();
    }
    return !why.empty();
  }));
  EXPECT_THAT(why, HasSubstr("3 messages wait to be acknowledged"));
  // As it was given: the host calls again with it.
  EXPECT_EQ(next.items.size(), 3U);
  EXPECT_TRUE(next.receipt);
  rd_kafka_mock_broker_set_up(cluster_.get(), 1);
  ASSERT_TRUE(eventually([&] {
    try {
      sink.write(next);
      return true;
    } catch (const Transient&) {
      return false;
    }
  }));
  flush(sink);
  sink.close();
  EXPECT_EQ(keys(), keys_of(1, 6));
  EXPECT_EQ(receipts_.done(), 2);
}

TEST_F(SinkKafkaFaultsTest, AnAnswerThatIsLostOrAnErrorThatPassesRepeatsNothing) {
  cluster_.topic("sessions");
  SinkKafka sink(options());
  sink.open(context_);
  next_answers({RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
                RD_KAFKA_RESP_ERR__TRANSPORT});
  write(sink, verdicts(1, 5));
  write(sink, verdicts(6, 10));
  flush(sink);
  sink.close();
  EXPECT_EQ(keys(), keys_of(1, 10));
  EXPECT_EQ(receipts_.done(), 2);
}

TEST_F(SinkKafkaFaultsTest, AMessageThatIsTooLargeIsRejectedAndTheOthersGoOn) {
  cluster_.topic("sessions");
  KafkaOptions small = options();
  small.kafka = {{"message.max.bytes", "2000"}};
  const std::string long_label(3000, 'x');
  SinkKafka sink(small);
  sink.open(context_);
  write(sink, {verdict(1), verdict(2, long_label), verdict(3)});
  flush(sink);
  sink.close();
  EXPECT_THAT(keys(), ElementsAre(to_hex(id(1)), to_hex(id(3))));
  EXPECT_THAT(context_.all_rejected(),
              ElementsAre(Pair(HasSubstr("topic 'sessions': Broker: Message size too large"),
                               json(verdict(2, long_label)))));
  EXPECT_EQ(context_.handled_items(), 2U);
  EXPECT_EQ(receipts_.done(), 1);
  EXPECT_EQ(context_.counter("sent-alone").value(), 0U);
}

TEST_F(SinkKafkaFaultsTest, ARefusedRequestIsSentAgainOneByOneAndOnlyTheGuiltyIsRejected) {
  cluster_.topic("sessions");
  KafkaOptions slow = options();
  slow.kafka = {{"linger.ms", "200"}};  // so that the batch goes in one request
  SinkKafka sink(slow);
  sink.open(context_);
  const auto too_large = RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
  const auto none = RD_KAFKA_RESP_ERR_NO_ERROR;
  next_answers({too_large, none, too_large, none});
  write(sink, verdicts(1, 3));
  flush(sink);
  sink.close();
  EXPECT_THAT(keys(), ElementsAre(to_hex(id(1)), to_hex(id(3))));
  EXPECT_THAT(context_.all_rejected(), ElementsAre(Pair(HasSubstr("too large"), json(verdict(2)))));
  EXPECT_TRUE(logged("sent again one by one"));
  EXPECT_EQ(context_.counter("sent-alone").value(), 3U);
  EXPECT_EQ(receipts_.done(), 1);
}

TEST_F(SinkKafkaFaultsTest, AnEndWithTheBrokerAwayFailsTheReceiptsAndDoesNotHang) {
  cluster_.topic("sessions");
  SinkKafka sink(options());
  sink.open(context_);
  rd_kafka_mock_broker_set_down(cluster_.get(), 1);
  write(sink, verdicts(1, 3));
  std::string why;
  ASSERT_TRUE(eventually([&] {
    why = transient(sink);
    return why != "none";
  }));
  EXPECT_THAT(why, HasSubstr("3 messages wait to be acknowledged: "));
  sink.close();
  EXPECT_EQ(receipts_.failed(), 1);
  EXPECT_TRUE(logged("3 messages were not acknowledged"));
}

TEST_F(SinkKafkaFaultsTest, ABrokerThatAnswersNothingIsAPassingError) {
  cluster_.topic("sessions");
  KafkaOptions quick = options();
  quick.timeout = 200ms;
  SinkKafka sink(quick);
  sink.open(context_);
  rd_kafka_mock_broker_set_rtt(cluster_.get(), 1, 3000);
  write(sink, verdicts(1, 1));
  EXPECT_THAT(transient(sink), HasSubstr("have acknowledged nothing for"));
  rd_kafka_mock_broker_set_rtt(cluster_.get(), 1, 0);
  flush(sink);
  sink.close();
  EXPECT_EQ(keys(), keys_of(1, 1));
}

TEST_F(SinkKafkaFaultsTest, ATopicThatVanishesIsWaitedFor) {
  cluster_.topic("sessions");
  KafkaOptions quick = options();
  quick.kafka = {{"topic.metadata.propagation.max.ms", "100"},
                 {"topic.metadata.refresh.interval.ms", "100"}};
  SinkKafka sink(quick);
  sink.open(context_);
  const auto gone = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
  rd_kafka_mock_topic_set_error(cluster_.get(), "sessions", gone);
  ASSERT_TRUE(eventually([&] {
    write(sink, {verdict(1)});
    return logged("sending it again");
  }));
  EXPECT_THAT(transient(sink), HasSubstr("topic 'sessions': "));
  rd_kafka_mock_topic_set_error(cluster_.get(), "sessions", RD_KAFKA_RESP_ERR_NO_ERROR);
  flush(sink);
  sink.close();
  EXPECT_EQ(receipts_.pending(), 0);
  EXPECT_EQ(receipts_.failed(), 0);
  EXPECT_EQ(static_cast<int>(keys().size()), receipts_.done());
}

TEST_F(SinkKafkaFaultsTest, AWrongTopicOrBrokerIsAnErrorOfItsOption) {
  KafkaOptions wrong = options();
  wrong.wait = 300ms;
  // The mock cluster would make it.
  rd_kafka_mock_topic_set_error(cluster_.get(), "sessions",
                                RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
  EXPECT_THAT(refusal(wrong), HasSubstr("topic: topic 'sessions': Broker: Unknown topic"));

  KafkaOptions forbidden = options();
  forbidden.wait = 1h;  // no use in waiting
  rd_kafka_mock_topic_set_error(cluster_.get(), "sessions",
                                RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
  EXPECT_THAT(refusal(forbidden), HasSubstr("topic: topic 'sessions': Broker: Topic auth"));

  KafkaOptions nobody = options();
  nobody.wait = 300ms;
  nobody.brokers = "127.0.0.1:1";
  EXPECT_THAT(refusal(nobody), HasSubstr("brokers: no answer from 127.0.0.1:1"));

  KafkaOptions contradiction = options();
  contradiction.kafka = {{"enable.idempotence", "true"}, {"acks", "1"}};
  EXPECT_THAT(refusal(contradiction), HasSubstr("kafka: "));
}

TEST_F(SinkKafkaFaultsTest, WhatIsForbiddenEndsTheRun) {
  cluster_.topic("sessions");
  {
    SinkKafka sink(options());
    sink.open(context_);
    next_answers({RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED});
    write(sink, {verdict(1)});
    EXPECT_THAT(
        failure([&] { sink.flush(); }),
        HasSubstr("the brokers refuse this producer: topic 'sessions': Broker: Topic auth"));
    sink.close();
  }
  constexpr std::int16_t kInitProducerId = 22;
  next_answers({RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED}, kInitProducerId);
  SinkKafka sink(options());
  sink.open(context_);
  EXPECT_THAT(failure([&] { write(sink, {}); }), HasSubstr("Cluster authorization failed"));
  sink.close();
  EXPECT_THAT(keys(), IsEmpty());
}

}  // namespace
}  // namespace millrace
