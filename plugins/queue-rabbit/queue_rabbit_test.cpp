#include "millrace/error.h"

#include "rabbit_fixture.h"

namespace millrace {
namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST_F(RabbitTest, TicketsGoThroughInBundles) {
  RabbitIn in(options_);
  in.open(context_);
  testing::WatchedReceipt watched;
  Batch<Ticket> batch = tickets(0, 25);
  batch.receipt = watched.make();
  put(in, std::move(batch));
  in.flush();
  EXPECT_EQ(watched.done(), 1);
  EXPECT_EQ(context_.counter("messages").value(), 3U);
  Analyser out(options_);
  ASSERT_TRUE(within(20s, [&] { return out.taker.different() == 25; }));
  EXPECT_EQ(out.taker.batches(), 3U);
  out.end();
  in.close();
  EXPECT_EQ(messages_in(options_.name), 0U);
}

TEST_F(RabbitTest, BeginningsAreDelayedAndTheRestGoesAtOnce) {
  for (const DelayBy way : {DelayBy::hold, DelayBy::ttl}) {
    SCOPED_TRACE(static_cast<int>(way));
    options_.delay_by = way;
    testing::TestContext context;
    RabbitIn in(options_);
    in.open(context);
    Analyser out(options_);
    const auto begin = steady_clock::now();
    Batch<Ticket> batch = tickets(0, 1, Due::timeout);
    batch.items.push_back(tickets(1, 1).items[0]);
    put(in, std::move(batch));
    ASSERT_TRUE(within(20s, [&] { return out.taker.different() == 2; }));
    EXPECT_LT(out.taker.time_of(1), out.taker.time_of(0));
    EXPECT_GE(out.taker.time_of(0) - begin, 500ms);
    EXPECT_EQ(context.counter("delayed").value(), 1U);
  }
}

TEST_F(RabbitTest, WhatAnAnalyserHoldsGoesToAnotherWhenItEnds) {
  options_.delay = 3s;
  RabbitIn in(options_);
  in.open(context_);
  const auto begin = steady_clock::now();
  {
    Analyser out(options_);
    put(in, tickets(0, 30, Due::timeout));
    in.flush();
    ASSERT_TRUE(within(
        20s, [&] { return messages_in(options_.name + ".held", "messages_unacknowledged") == 3; }));
    out.end();
    EXPECT_EQ(out.taker.different(), 0U);
  }
  Analyser next(options_);
  ASSERT_TRUE(within(20s, [&] { return next.taker.different() == 30; }));
  EXPECT_GE(next.taker.time_of(0) - begin, 3s);
  EXPECT_EQ(next.context.counter("dead").value(), 0U);
}

TEST_F(RabbitTest, AClockThatIsAheadHoldsNothingForLongerThanTheDelay) {
  RabbitIn in(options_);
  in.open(context_);
  AmqpSession session(options_);
  const Batch<Ticket> batch = tickets(0, 1, Due::timeout);
  const std::string body = encode(batch.items);
  session.publish("", options_.name + ".held", body,
                  {{kDue, BrokerClock().at(steady_clock::now() + 1h), {}}, {kHold, 500, {}}});
  Analyser out(options_);
  EXPECT_TRUE(within(20s, [&] { return out.taker.different() == 1; }));
}

TEST_F(RabbitTest, TheBrokersClockIsMeasured) {
  std::chrono::milliseconds ahead{-1};
  const BrokerClock clock = measure_clock(
      options_, [] { return false; }, ahead);
  // It runs on this machine.
  EXPECT_EQ(ahead, 0ms);
  EXPECT_EQ(clock.earliest(), clock.latest());
}

TEST_F(RabbitTest, AReceiverWithAnotherDelayIsReportedOnce) {
  for (const DelayBy way : {DelayBy::hold, DelayBy::ttl}) {
    SCOPED_TRACE(static_cast<int>(way));
    options_.delay_by = way;
    testing::TestContext context;
    RabbitIn in(options_);
    in.open(context);
    RabbitOptions other = options_;
    other.delay = 90s;
    Analyser out(other);
    put(in, tickets(0, 20, Due::timeout));
    ASSERT_TRUE(within(20s, [&] { return out.taker.different() == 20; }));
    ASSERT_EQ(out.context.messages().size(), 1U);
    EXPECT_THAT(out.context.messages()[0].second,
                AllOf(HasSubstr("for 0.5 s"), HasSubstr("'delay' is 90 s")));
  }
}

TEST_F(RabbitTest, FailedMessagesComeAgainAfterAPauseAndAreGivenUpInTheEnd) {
  options_.max_attempts = 3;
  RabbitIn in(options_);
  in.open(context_);
  Analyser out(options_);
  out.taker.answer = Taker::Answer::fail;
  const auto begin = steady_clock::now();
  put(in, tickets(7, 1));
  ASSERT_TRUE(within(20s, [&] { return out.context.counter("dead").value() == 1; }));
  EXPECT_EQ(out.taker.seen(7), 3);
  EXPECT_GE(out.taker.time_of(7) - begin, 100ms);
  EXPECT_EQ(out.context.counter("retried").value(), 2U);
  EXPECT_THAT(out.context.messages().back().second, HasSubstr("after 3 attempts"));
  ASSERT_TRUE(within(20s, [&] { return messages_in(options_.name + ".dead") == 1; }));
}

TEST_F(RabbitTest, PoisonedMessageGoesAsideAndTheOthersGoOn) {
  RabbitIn in(options_);
  in.open(context_);
  AmqpSession session(options_);
  session.publish("", options_.name, "{\"tickets\": \"no\"}");
  put(in, tickets(0, 5));
  Analyser out(options_);
  ASSERT_TRUE(within(20s, [&] { return out.taker.different() == 5; }));
  EXPECT_EQ(out.context.counter("dead").value(), 1U);
  ASSERT_FALSE(out.context.messages().empty());
  EXPECT_THAT(out.context.messages()[0].second,
              AllOf(HasSubstr(".dead"), HasSubstr("does not begin with MRT")));
  ASSERT_TRUE(within(20s, [&] { return messages_in(options_.name + ".dead") == 1; }));
}

TEST_F(RabbitTest, AnalysersShareTheWorkAndPrefetchBoundsIt) {
  options_.prefetch = 2;
  options_.bundle = 1;
  RabbitIn in(options_);
  in.open(context_);
  Analyser one(options_);
  Analyser other(options_);
  one.taker.answer = Taker::Answer::hold;
  put(in, tickets(0, 20));
  // One keeps two back; the other must get all the rest.
  ASSERT_TRUE(within(20s, [&] { return one.taker.different() + other.taker.different() == 20; }));
  EXPECT_EQ(one.taker.different(), 2U);
  one.taker.resolve(Outcome::done);
}

TEST_F(RabbitTest, WhatIsUnderWayAtTheEndGoesBackUnlessItIsDone) {
  options_.finish = 300ms;
  RabbitIn in(options_);
  in.open(context_);
  {
    Analyser out(options_);
    out.taker.answer = Taker::Answer::hold;
    put(in, tickets(0, 1));
    ASSERT_TRUE(within(20s, [&] { return out.taker.different() == 1; }));
    out.end();
  }
  Analyser next(options_);
  EXPECT_TRUE(within(20s, [&] { return next.taker.seen(0) == 1; }));
  // It was no failure of the message.
  EXPECT_EQ(next.context.counter("dead").value(), 0U);
}

TEST_F(RabbitTest, OtherArgumentsOfAQueueAreNamed) {
  options_.delay_by = DelayBy::ttl;
  {
    AmqpSession session(options_);
    session.declare_queue(options_.name + ".delay.500", {{"x-message-ttl", 9999, {}}});
  }
  RabbitIn in(options_);
  try {
    in.open(context_);
    FAIL() << "the queue has another time-out";
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.option(), "name");
    EXPECT_THAT(error.what(), AllOf(HasSubstr("x-message-ttl"), HasSubstr("500"), HasSubstr("9999"),
                                    HasSubstr(".delay.500")));
  }
}

TEST_F(RabbitTest, ABrokerWithoutTheDelayPluginIsToldApart) {
  options_.delay_by = DelayBy::x_delayed_message;
  RabbitIn in(options_);
  try {
    in.open(context_);
    FAIL() << "this broker was started without its plugin";
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.option(), "delay_by");
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr("rabbitmq-plugins enable rabbitmq_delayed_message_exchange"),
                      HasSubstr("delay_by = \"hold\" needs none")));
  }
}

TEST_F(RabbitTest, WrongUserVhostAndAddressAreConfigurationErrors) {
  const std::string place = "127.0.0.1:" + std::to_string(services->port("rabbitmq"));
  options_.wait = 0s;
  for (const auto& [server, words] : std::vector<std::pair<std::string, std::string>>{
           {"amqp://guest:wrong@" + place, "refuses the user 'guest'"},
           {"amqp://guest:guest@" + place + "/nowhere", "vhost 'nowhere'"},
           {"amqp://127.0.0.1:1", "cannot connect to 127.0.0.1:1: Connection refused"},
           {"amqps://127.0.0.1:1", "cannot connect to 127.0.0.1:1: Connection refused"},
           {"amqp:/x", "expected amqp://"}}) {
    options_.server = server;
    RabbitOut out(options_);
    try {
      out.open(context_);
      ADD_FAILURE() << server;
    } catch (const ConfigError& error) {
      EXPECT_EQ(error.option(), "server");
      EXPECT_THAT(error.what(), HasSubstr(words));
      EXPECT_THAT(error.what(), ::testing::Not(HasSubstr("wrong")));
    }
  }
}

}  // namespace
}  // namespace millrace
