#include "millrace/error.h"

#include "rabbit_fixture.h"

namespace millrace {
namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;
using ::testing::AllOf;
using ::testing::HasSubstr;

/// A broker with the delayed-message plugin, where there is one.
class RabbitDelayedTest : public RabbitTest {
 protected:
  static void SetUpTestSuite() {
    services = std::make_unique<testing::Services>(
        testing::Services::Names{"rabbitmq"},
        testing::Services::Names{"--plugin", "rabbitmq_delayed_message_exchange"});
  }
  void SetUp() override {
    RabbitTest::SetUp();
    options_.delay_by = DelayBy::x_delayed_message;
  }
  /// "option: message" of what `open` says against the broker.
  std::string refusal() {
    RabbitIn in(options_);
    try {
      in.open(context_);
    } catch (const ConfigError& error) {
      return error.option() + ": " + error.what();
    }
    return "accepted";
  }
};

TEST_F(RabbitDelayedTest, BeginningsAreDelayedAndTheRestGoesAtOnce) {
  options_.delay = 2s;
  RabbitIn in(options_);
  in.open(context_);
  Analyser out(options_);
  testing::WatchedReceipt watched;
  Batch<Ticket> batch = tickets(0, 25, Due::timeout);
  batch.items.push_back(tickets(100, 1).items[0]);
  batch.receipt = watched.make();
  const auto begin = steady_clock::now();
  put(in, std::move(batch));
  // Confirmed when the plugin has them, not when they are due.
  in.flush();
  EXPECT_EQ(watched.done(), 1);
  const auto confirmed = steady_clock::now();
  ASSERT_TRUE(within(20s, [&] { return out.taker.different() == 26; }));
  for (std::uint32_t epoch = 0; epoch < 25; ++epoch) {
    EXPECT_LT(out.taker.time_of(100), out.taker.time_of(epoch));
    EXPECT_LT(confirmed, out.taker.time_of(epoch));
    EXPECT_GE(out.taker.time_of(epoch) - begin, 2s);
    EXPECT_EQ(out.taker.seen(epoch), 1);
  }
  EXPECT_EQ(context_.counter("delayed").value(), 25U);
  // The plugin returns what is mandatory, which would break the connection.
  EXPECT_EQ(context_.counter("reconnects").value(), 0U);
  EXPECT_EQ(context_.counter("republished").value(), 0U);
  out.end();
  EXPECT_EQ(messages_in(options_.name), 0U);
}

TEST_F(RabbitDelayedTest, WhatIsMandatoryComesBackThoughItIsTaken) {
  // Why tickets go there without.
  RabbitIn in(options_);
  in.open(context_);
  AmqpSession session(options_);
  const Batch<Ticket> batch = tickets(0, 1, Due::timeout);
  session.publish(options_.name + ".delayed", options_.name, encode(batch.items),
                  {{"x-delay", 500, {}}}, AmqpSession::Unroutable::comes_back);
  EXPECT_THROW(
      within(20s, [&] { return session.next().kind == AmqpSession::Event::Kind::blocked; }),
      LinkLost);
  Analyser out(options_);
  EXPECT_TRUE(within(20s, [&] { return out.taker.different() == 1; }));
}

TEST_F(RabbitDelayedTest, ManyMessagesAllComeOnce) {
  options_.bundle = 1;
  RabbitIn in(options_);
  in.open(context_);
  Analyser out(options_);
  constexpr std::uint32_t kTickets = 5000;
  for (std::uint32_t first = 0; first < kTickets; first += 100) {
    put(in, tickets(first, 100, Due::timeout));
  }
  in.flush();
  EXPECT_TRUE(within(60s, [&] { return out.taker.different() == kTickets; }))
      << out.taker.different();
  EXPECT_EQ(out.taker.batches(), kTickets);
}

TEST_F(RabbitDelayedTest, FailedMessagesComeAgainWithoutAnotherDelay) {
  RabbitIn in(options_);
  in.open(context_);
  Analyser out(options_);
  out.taker.answer = Taker::Answer::fail;
  put(in, tickets(7, 1, Due::timeout));
  ASSERT_TRUE(within(20s, [&] { return out.taker.seen(7) == 2; }));
  out.taker.answer = Taker::Answer::done;
  ASSERT_TRUE(within(20s, [&] { return out.context.counter("acknowledged").value() == 1; }));
  EXPECT_EQ(out.context.counter("dead").value(), 0U);
}

// What falls due while the broker stops may be lost, so these two leave it the time to stop.
TEST_F(RabbitDelayedTest, DelaysSurviveARestartOfTheBroker) {
  options_.delay = 12s;
  RabbitIn in(options_);
  in.open(context_);
  const auto begin = steady_clock::now();
  put(in, tickets(0, 30, Due::timeout));
  in.flush();
  services->restart("rabbitmq");
  Analyser out(options_);
  ASSERT_TRUE(within(60s, [&] { return out.taker.different() == 30; }))
      << out.taker.different() << " of 30; " << queues();
  EXPECT_GE(out.taker.time_of(0) - begin, 12s);
  // Its connection is made anew and takes more.
  put(in, tickets(100, 1, Due::timeout));
  EXPECT_TRUE(within(60s, [&] { return out.taker.seen(100) == 1; }));
}

TEST_F(RabbitDelayedTest, WhatFallsDueWhileTheBrokerIsAwayComesWhenItIsBack) {
  options_.delay = 12s;
  RabbitIn in(options_);
  in.open(context_);
  put(in, tickets(0, 30, Due::timeout));
  in.flush();
  const auto due = steady_clock::now() + options_.delay;
  services->stop("rabbitmq");
  std::this_thread::sleep_until(due);
  services->start("rabbitmq");
  Analyser out(options_);
  EXPECT_TRUE(within(60s, [&] { return out.taker.different() == 30; }))
      << out.taker.different() << " of 30; " << queues();
}

TEST_F(RabbitDelayedTest, AnExchangeOfAnotherTypeIsNamed) {
  {
    AmqpSession session(options_);
    session.declare_exchange(options_.name + ".delayed", "fanout", {});
  }
  EXPECT_THAT(refusal(), AllOf(::testing::StartsWith("name: "),
                               HasSubstr("exchange '" + options_.name + ".delayed' with type = "),
                               HasSubstr("'fanout'"), HasSubstr("'x-delayed-message'")));
}

TEST_F(RabbitDelayedTest, OtherArgumentsOfTheExchangeAreNamed) {
  {
    AmqpSession session(options_);
    session.declare_exchange(
        options_.name + ".delayed", "x-delayed-message",
        {{"x-delayed-type", 0, "direct"}, {"alternate-exchange", 0, "amq.fanout"}});
  }
  EXPECT_THAT(refusal(), AllOf(::testing::StartsWith("name: "), HasSubstr("alternate-exchange"),
                               HasSubstr("amq.fanout"), HasSubstr("choose another name")));
}

TEST_F(RabbitDelayedTest, AnExchangeThatRoutesByAnotherTypeDoesAsWell) {
  // The broker does not compare x-delayed-type.
  for (const char* type : {"topic", "fanout", "headers"}) {
    SCOPED_TRACE(type);
    options_.name += type;
    {
      AmqpSession session(options_);
      session.declare_exchange(options_.name + ".delayed", "x-delayed-message",
                               {{"x-delayed-type", 0, type}});
    }
    RabbitIn in(options_);
    in.open(context_);
    Analyser out(options_);
    const auto begin = steady_clock::now();
    put(in, tickets(0, 1, Due::timeout));
    ASSERT_TRUE(within(20s, [&] { return out.taker.different() == 1; }));
    EXPECT_GE(out.taker.time_of(0) - begin, 500ms);
  }
}

}  // namespace
}  // namespace millrace
