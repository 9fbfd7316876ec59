#include "redis_fixture.h"

namespace millrace {
namespace {

class ClaimTest : public RedisTest {
 protected:
  std::vector<Ticket> sessions(int count, int packets = 3) {
    Receiver receiver(options_);
    std::vector<Packet> list;
    for (int flow = 0; flow < count; ++flow) {
      for (int i = 0; i < packets; ++i) {
        list.push_back(maker_.make({.src_port = static_cast<std::uint16_t>(1000 + flow)}, i * 1ms));
      }
    }
    all_ = list;
    receiver.give(list);
    receiver.flush();
    return receiver.take_tickets();
  }
  [[nodiscard]] SeenMap expected() const { return Oracle(all_, options_).sessions; }

  std::vector<Packet> all_;
};

TEST_F(ClaimTest, SessionIsDoneOnlyWhenItIsStored) {
  const auto tickets = sessions(1);
  {
    Claimer dies(claim_options_);
    dies.give(tickets);
    ASSERT_EQ(dies.recorder.items().size(), 1U);
    EXPECT_EQ(dies.receipts.pending(), 1);
    EXPECT_EQ(waiting(), 1);
    dies.close();
    dies.recorder.batches.clear();
    EXPECT_EQ(dies.receipts.failed(), 1);  // its ticket goes back
  }
  EXPECT_EQ(waiting(), 1);
  claim_options_.lease = 10ms;
  // The lease of the dead one still runs: its end cannot be told. Redis's clock decides.
  ask({"FLUSHALL"});
  const auto again = sessions(1);
  {
    Claimer dies(claim_options_);
    dies.give(again);
    dies.close();
  }
  const auto until = std::chrono::steady_clock::now() + 10s;
  SeenMap got;
  while (got.empty() && std::chrono::steady_clock::now() < until) {
    Claimer other(claim_options_);
    other.give(again);
    got = other.take();
    other.close();
  }
  EXPECT_EQ(got, expected());
  EXPECT_EQ(waiting(), 0);
}

TEST_F(ClaimTest, SecondClaimComesBackAndTheRestOfItsTicketsGoOn) {
  const auto tickets = sessions(3);
  Claimer one(claim_options_);
  Claimer two(claim_options_);
  one.give({tickets[1]});
  claim_options_.retry = 10ms;
  Claimer fast(claim_options_);
  fast.give(tickets);
  EXPECT_EQ(fast.recorder.items().size(), 2U);
  EXPECT_EQ(fast.context.dropped_for("leased"), 1U);
  fast.take();
  fast.wait(1);
  EXPECT_EQ(fast.receipts.failed(), 1);  // all three come again
  one.take();
  one.wait(1);
  EXPECT_EQ(one.receipts.done(), 1);
  fast.give(tickets);
  fast.wait(2);
  EXPECT_EQ(fast.context.dropped_for("already-done"), 3U);
  EXPECT_EQ(fast.receipts.done(), 1);
}

TEST_F(ClaimTest, FailureEndsTheLeaseAndTheTicketComesBack) {
  const auto tickets = sessions(2);
  Claimer claimer(claim_options_);
  claimer.give(tickets);
  EXPECT_EQ(claimer.take(Outcome::failed), expected());
  claimer.wait(1);
  EXPECT_EQ(claimer.receipts.failed(), 1);
  EXPECT_EQ(claimer.context.counter("returned").value(), 2U);
  claimer.give(tickets);
  EXPECT_EQ(claimer.take(), expected());
  claimer.wait(2);
  EXPECT_EQ(claimer.receipts.done(), 1);
  EXPECT_EQ(claimer.context.counter("settled").value(), 2U);
}

TEST_F(ClaimTest, LeaseThatRanOutMustNotDeleteWhatAnotherWorksOn) {
  const auto tickets = sessions(1);
  ClaimOptions hasty = claim_options_;
  hasty.lease = 10ms;
  Claimer slow(hasty);
  slow.give(tickets);
  std::this_thread::sleep_for(20ms);  // longer than the lease, by Redis's clock
  Claimer other(claim_options_);
  other.give(tickets);
  ASSERT_EQ(other.recorder.items().size(), 1U);
  slow.take();
  slow.wait(1);
  EXPECT_EQ(slow.receipts.done(), 1);  // its row is stored, and is the same
  EXPECT_EQ(slow.context.counter("lease-lost").value(), 1U);
  EXPECT_EQ(waiting(), 1);
  EXPECT_EQ(other.take(), expected());
  other.wait(1);
  EXPECT_EQ(waiting(), 0);
  EXPECT_EQ(other.context.counter("lease-lost").value(), 0U);
}

TEST_F(ClaimTest, LeaseThatRanOutUnnoticedStillEndsTheSession) {
  const auto tickets = sessions(1);
  claim_options_.lease = 10ms;
  Claimer slow(claim_options_);
  slow.give(tickets);
  std::this_thread::sleep_for(20ms);
  slow.take();
  slow.wait(1);
  EXPECT_EQ(waiting(), 0);
}

TEST_F(ClaimTest, ClaimedSessionTakesNoMorePackets) {
  const auto tickets = sessions(1, 3);
  Claimer claimer(claim_options_);
  claimer.give(tickets);
  Receiver receiver(options_);
  receiver.give({maker_.make({}, 4ms)});
  receiver.flush();
  EXPECT_EQ(receiver.context.dropped_for("after-due"), 1U);
  EXPECT_EQ(claimer.take(), expected());
  claimer.wait(1);
}

TEST_F(ClaimTest, UnknownTicketsAndRepeatedOnesAreDropped) {
  auto tickets = sessions(1);
  ask({"HSET", "millrace:meta", "created", "1000000"});  // it may have been done long ago
  Ticket unknown = tickets[0];
  unknown.key.low_port = 9;
  unknown.id[0] ^= 1U;
  Ticket earlier = tickets[0];  // of a session of this five-tuple that is gone
  earlier.id[0] ^= 2U;
  Claimer claimer(claim_options_);
  claimer.give({tickets[0], unknown, tickets[0], earlier});
  EXPECT_EQ(claimer.context.dropped_for("unknown"), 1U);
  EXPECT_EQ(claimer.context.dropped_for("duplicate"), 1U);
  EXPECT_EQ(claimer.context.dropped_for("already-done"), 1U);
  EXPECT_EQ(claimer.take(), expected());
  claimer.wait(1);
  EXPECT_EQ(claimer.receipts.done(), 1);
}

TEST_F(ClaimTest, ManyClaimersGiveEverySessionOnce) {
  const auto tickets = sessions(400);
  constexpr int kClaimers = 4;
  std::deque<Claimer> claimers;
  for (int i = 0; i < kClaimers; ++i) claimers.emplace_back(claim_options_);
  std::vector<SeenMap> got(kClaimers);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kClaimers; ++i) {
    threads.emplace_back([&, i] {
      for (std::size_t t = 0; t < tickets.size(); t += 20) {
        claimers[i].give({tickets.begin() + static_cast<std::ptrdiff_t>(t),
                          tickets.begin() + static_cast<std::ptrdiff_t>(t + 20)});
      }
      got[i] = claimers[i].take();
    });
  }
  for (std::thread& thread : threads) thread.join();
  SeenMap all;
  for (const SeenMap& one : got) {
    for (const auto& [id, text] : one) {
      EXPECT_TRUE(all.emplace(id, text).second) << "twice: " << text;
    }
  }
  EXPECT_EQ(all, expected());
  for (Claimer& claimer : claimers) claimer.close();
  EXPECT_EQ(waiting(), 0);
}

TEST_F(ClaimTest, DamagedSessionIsCountedAndPutAside) {
  const auto tickets = sessions(2);
  const auto data = keys("*}s*");
  ASSERT_EQ(data.size(), 2U);
  ask({"RPUSH", data[0], "nonsense"});
  Claimer claimer(claim_options_);
  claimer.give(tickets);
  EXPECT_EQ(claimer.recorder.items().size(), 1U);
  EXPECT_EQ(claimer.context.dropped_for("damaged"), 1U);
  claimer.take();
  claimer.wait(1);
  EXPECT_EQ(claimer.receipts.done(), 1);
  EXPECT_EQ(waiting(), 0);
}

TEST_F(ClaimTest, MoreSessionsThanAreFetchedAtOnce) {
  const auto tickets = sessions(100);
  claim_options_.batch = 7;
  Claimer claimer(claim_options_);
  claimer.give(tickets);
  EXPECT_EQ(claimer.recorder.batches.size(), 15U);
  EXPECT_EQ(claimer.take(), expected());
  claimer.wait(1);
  EXPECT_EQ(claimer.receipts.done(), 1);
}

TEST_F(ClaimTest, CloseSettlesWhatWasHandedIn) {
  const auto tickets = sessions(50);
  Claimer claimer(claim_options_);
  claimer.give(tickets);
  claimer.take();
  claimer.close();
  EXPECT_EQ(claimer.receipts.done(), 1);
  EXPECT_EQ(waiting(), 0);
}

}  // namespace
}  // namespace millrace
