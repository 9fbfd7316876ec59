#include "rabbit_fixture.h"

namespace millrace {
namespace {

using namespace std::chrono_literals;

/// The broker is killed, frozen and restarted here, so it is one of this suite's own.
class RabbitFaultsTest : public RabbitTest {};

TEST_F(RabbitFaultsTest, NothingIsAcknowledgedWhileTheBrokerIsFrozen) {
  RabbitIn in(options_);
  in.open(context_);
  testing::WatchedReceipt watched;
  services->pause("rabbitmq");
  Batch<Ticket> batch = tickets(0, 1);
  batch.receipt = watched.make();
  put(in, std::move(batch));
  EXPECT_FALSE(within(1s, [&] { return watched.pending() == 0; }));
  services->resume("rabbitmq");
  EXPECT_TRUE(within(30s, [&] { return watched.done() == 1; }));
}

TEST_F(RabbitFaultsTest, AFrozenBrokerIsNoticedByItsHeartbeat) {
  options_.heartbeat = 1s;
  RabbitIn in(options_);
  in.open(context_);
  services->pause("rabbitmq");
  EXPECT_TRUE(within(
      30s, [&] { return context_.failing("connection").find("heartbeat") != std::string::npos; }));
  services->resume("rabbitmq");
  put(in, tickets(0, 1));
  in.flush();
  EXPECT_TRUE(within(30s, [&] { return context_.failing("connection").empty(); }));
}

TEST_F(RabbitFaultsTest, DelaysSurviveAKilledBroker) {
  options_.delay = 3s;
  RabbitIn in(options_);
  in.open(context_);
  const auto begin = std::chrono::steady_clock::now();
  put(in, tickets(0, 30, Due::timeout));
  in.flush();
  services->kill("rabbitmq");
  services->start("rabbitmq");
  Analyser out(options_);
  ASSERT_TRUE(within(60s, [&] { return out.taker.different() == 30; }))
      << out.taker.different() << " of 30; " << queues();
  EXPECT_GE(out.taker.time_of(0) - begin, 3s);
}

TEST_F(RabbitFaultsTest, TicketsThatFallDueAroundTheBrokersDeathArrive) {
  // Queues whose delays end before the kill, at it, while the broker is away and while it starts.
  constexpr int kQueues = 20;
  std::vector<RabbitOptions> options(kQueues, options_);
  std::vector<std::unique_ptr<RabbitIn>> ins;
  for (int i = 0; i < kQueues; ++i) {
    options[i].name += std::to_string(i);
    options[i].delay = 1s + 50ms * i;
    ins.push_back(std::make_unique<RabbitIn>(options[i]));
    ins.back()->open(context_);
  }
  const auto begin = std::chrono::steady_clock::now();
  for (const auto& in : ins) put(*in, tickets(0, 30, Due::timeout));
  for (const auto& in : ins) in->flush();
  std::this_thread::sleep_until(begin + options[kQueues / 4].delay);
  services->kill("rabbitmq");
  services->start("rabbitmq");
  for (int i = 0; i < kQueues; ++i) {
    Analyser out(options[i]);
    EXPECT_TRUE(within(60s, [&] { return out.taker.different() == 30; }))
        << options[i].name << ": " << out.taker.different() << " of 30; " << queues();
  }
}

TEST_F(RabbitFaultsTest, EveryTicketArrivesThroughARestart) {
  constexpr std::uint32_t kTickets = 20000;
  RabbitIn in(options_);
  in.open(context_);
  Analyser out(options_);
  testing::WatchedReceipt watched;
  std::atomic<bool> restarted{false};
  std::jthread restarter([&] {
    within(30s, [&] { return out.taker.different() > 1000; });
    services->kill("rabbitmq");
    services->start("rabbitmq");
    restarted = true;
  });
  std::uint32_t sent = 0;
  // Goes on beyond the restart, however fast the broker is.
  while (sent < kTickets || !restarted) {
    Batch<Ticket> batch = tickets(sent, 100);
    batch.receipt = watched.make();
    put(in, std::move(batch));
    sent += 100;
  }
  in.flush();
  EXPECT_EQ(watched.pending(), 0);
  EXPECT_EQ(watched.failed(), 0);
  EXPECT_TRUE(within(60s, [&] { return out.taker.different() == sent; }))
      << out.taker.different() << " of " << sent;
  EXPECT_GE(context_.counter("reconnects").value(), 1U);
  EXPECT_GE(out.context.counter("reconnects").value(), 1U);
}

TEST_F(RabbitFaultsTest, WaitsAtTheStartForABrokerThatComesLater) {
  services->stop("rabbitmq");
  std::string why;
  std::jthread starter([&] {
    within(30s, [&] { return !(why = context_.failing("connection")).empty(); });
    services->start("rabbitmq");
  });
  RabbitIn in(options_);
  in.open(context_);
  put(in, tickets(0, 1));
  in.flush();
  starter.join();
  EXPECT_THAT(why, ::testing::HasSubstr("cannot connect"));
  EXPECT_EQ(context_.failing("connection"), "");
}

TEST_F(RabbitFaultsTest, ABrokerThatIsAwayIsAPassingError) {
  options_.window = 2;
  options_.timeout = 200ms;
  RabbitIn in(options_);
  in.open(context_);
  services->stop("rabbitmq");
  // The window takes some; then the call must say so, and leave the batch as it was.
  Batch<Ticket> batch = tickets(0, 10);
  EXPECT_THROW(
      {
        for (int i = 0; i < 5; ++i) {
          Batch<Ticket> more = tickets(0, 10);
          in.write(more);
        }
        in.write(batch);
      },
      Transient);
  EXPECT_EQ(batch.items.size(), 10U);
  services->start("rabbitmq");
  put(in, std::move(batch));
  in.flush();
}

/// What the broker does by itself or at an operator's command, while its connections stay up.
class RabbitBrokerTest : public RabbitTest {
 protected:
  static void eval(const std::string& code) { services->command("rabbitmqctl", {"eval", code}); }
  /// Of the queues NAME, NAME.held, and so on.
  [[nodiscard]] std::string each_queue(const std::string& function) const {
    std::string list;
    for (const std::string& queue : Topology(options_).taken()) list += "<<\"" + queue + "\">>,";
    return "lists:foreach(fun(Name) -> rabbit_amqqueue:with(rabbit_misc:r(<<\"/\">>, queue, "
           "Name), " +
           function + ") end, [" + list + "<<\"" + options_.name + ".dead\">>]).";
  }
  void delete_queues() const {
    eval(each_queue("fun(Q) -> rabbit_amqqueue:delete(Q, false, false, <<\"test\">>) end"));
  }
  /// As the broker might lose a consumer without telling it.
  void remove_consumers() const {
    eval(each_queue(
        "fun(Q) -> [gen_server2:call(amqqueue:get_pid(Q), {basic_cancel, element(1, C), element(2, "
        "C), undefined, <<\"test\">>}) || C <- rabbit_amqqueue:consumers(Q)], ok end"));
  }
};

TEST_F(RabbitBrokerTest, QueuesThatAreDeletedAreDeclaredAndConsumedAgain) {
  RabbitIn in(options_);
  in.open(context_);
  Analyser out(options_);
  delete_queues();
  ASSERT_TRUE(within(20s, [&] { return messages_in(options_.name, "consumers") == 1; }))
      << queues("consumers");
  out.taker.answer = Taker::Answer::fail;
  put(in, tickets(0, 10));
  put(in, tickets(10, 10, Due::timeout));
  in.flush();
  ASSERT_TRUE(within(20s, [&] { return out.context.counter("retried").value() >= 2; }));
  out.taker.answer = Taker::Answer::done;
  ASSERT_TRUE(within(20s, [&] { return out.context.counter("acknowledged").value() == 2; }));
  EXPECT_EQ(out.taker.different(), 20U);
  // The consumer's connection stayed, and with it what was under way.
  EXPECT_EQ(out.context.counter("reconnects").value(), 0U);
  EXPECT_EQ(out.context.failing("consumer"), "");
}

TEST_F(RabbitBrokerTest, NothingUnconfirmedIsLostWhileQueuesAreDeleted) {
  options_.delay = 1ms;
  RabbitIn in(options_);
  in.open(context_);
  put(in, tickets(0, 10));
  in.flush();
  delete_queues();
  testing::WatchedReceipt watched;
  for (const std::uint32_t first : {100U, 200U}) {
    Batch<Ticket> batch = tickets(first, 50, first == 100 ? Due::full : Due::timeout);
    batch.receipt = watched.make();
    put(in, std::move(batch));
  }
  ASSERT_TRUE(within(20s, [&] { return watched.done() == 2; }));
  Analyser out(options_);
  EXPECT_TRUE(within(20s, [&] { return out.taker.different() == 100; })) << queues();
  EXPECT_TRUE(within(20s, [&] { return context_.failing("connection").empty(); }));
}

TEST_F(RabbitBrokerTest, AQueueWithoutItsConsumerIsConsumedAgain) {
  options_.check_queues = 200ms;
  RabbitIn in(options_);
  in.open(context_);
  Analyser out(options_);
  remove_consumers();
  put(in, tickets(0, 10));
  put(in, tickets(10, 10, Due::timeout));
  EXPECT_TRUE(within(20s, [&] { return out.taker.different() == 20; })) << queues("consumers");
  EXPECT_TRUE(within(20s, [&] { return out.context.failing("consumer").empty(); }));
}

TEST_F(RabbitBrokerTest, AReceiverDeclaresMissingQueuesWithoutPublishing) {
  options_.check_queues = 200ms;
  RabbitIn in(options_);
  in.open(context_);
  delete_queues();
  EXPECT_TRUE(within(20s, [&] {
    return queues().find(options_.name + ".dead\t") != std::string::npos;
  })) << queues();
}

TEST_F(RabbitBrokerTest, AMemoryAlarmIsCountedAndFailsTheCondition) {
  RabbitIn in(options_);
  in.open(context_);
  services->command("rabbitmqctl", {"set_vm_memory_high_watermark", "0.00001"});
  testing::WatchedReceipt watched;
  Batch<Ticket> batch = tickets(0, 1);
  batch.receipt = watched.make();
  put(in, std::move(batch));
  EXPECT_TRUE(within(20s, [&] { return !context_.failing("publishing").empty(); }));
  EXPECT_THAT(context_.failing("publishing"), ::testing::HasSubstr("low on memory"));
  EXPECT_EQ(context_.counter("blocked").value(), 1U);
  EXPECT_EQ(watched.done(), 0);
  services->command("rabbitmqctl", {"set_vm_memory_high_watermark", "0.4"});
  EXPECT_TRUE(within(20s, [&] { return watched.done() == 1; }));
  EXPECT_TRUE(within(20s, [&] { return context_.failing("publishing").empty(); }));
  EXPECT_EQ(context_.counter("reconnects").value(), 0U);
}

TEST_F(RabbitBrokerTest, AnAnalyserWhoseWorkFailsGoesOnDuringAMemoryAlarm) {
  options_.prefetch = 2;
  options_.bundle = 1;
  RabbitIn in(options_);
  in.open(context_);
  put(in, tickets(0, 20));
  in.flush();
  services->command("rabbitmqctl", {"set_vm_memory_high_watermark", "0.00001"});
  Analyser out(options_);
  out.taker.answer = Taker::Answer::fail;
  ASSERT_TRUE(within(60s, [&] { return out.context.counter("blocked").value() == 1; }));
  out.taker.answer = Taker::Answer::done;
  // What the first connection had stays with it until the broker reads on.
  EXPECT_TRUE(within(60s, [&] { return out.context.counter("acknowledged").value() >= 16; }))
      << out.context.counter("acknowledged").value();
  EXPECT_THAT(out.context.failing("publishing"), ::testing::HasSubstr("low on memory"));
  services->command("rabbitmqctl", {"set_vm_memory_high_watermark", "0.4"});
  EXPECT_TRUE(within(60s, [&] { return messages_in(options_.name) == 0; })) << queues();
}

TEST_F(RabbitBrokerTest, AnnouncesWhatItUnderstands) {
  RabbitIn in(options_);
  in.open(context_);
  const std::string properties =
      services->command("rabbitmqctl", {"-q", "list_connections", "client_properties"});
  for (const char* name :
       {"authentication_failure_close", "basic.nack", "connection.blocked",
        "consumer_cancel_notify", "publisher_confirms", "exchange_exchange_bindings"}) {
    EXPECT_THAT(properties, ::testing::HasSubstr(name));
  }
}

}  // namespace
}  // namespace millrace
