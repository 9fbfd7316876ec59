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
  const auto noticed = [&] {
    for (const auto& [level, text] : context_.messages()) {
      if (text.find("heartbeat") != std::string::npos) return true;
    }
    return false;
  };
  EXPECT_TRUE(within(30s, noticed));
  services->resume("rabbitmq");
  put(in, tickets(0, 1));
  in.flush();
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
  std::jthread starter([] { services->start("rabbitmq"); });
  RabbitIn in(options_);
  in.open(context_);
  put(in, tickets(0, 1));
  in.flush();
  EXPECT_THAT(context_.messages().at(0).second, ::testing::HasSubstr("waiting for it"));
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

}  // namespace
}  // namespace millrace
