// Sessions whose tickets do not come, and sessions that are lost.

#include "redis_fixture.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

class OverdueTest : public RedisTest {
 protected:
  void SetUp() override {
    RedisTest::SetUp();
    options_.delay = 10ms;
    claim_options_.overdue = 20ms;
  }
  void TearDown() override {
    if (services->missing().empty()) ask({"CONFIG", "SET", "maxmemory", "0"});
  }

  /// Sessions of `packets` packets each; their tickets.
  std::vector<Ticket> sessions(int count, int packets = 3) {
    all_.clear();
    for (int flow = 0; flow < count; ++flow) {
      for (int i = 0; i < packets; ++i) {
        all_.push_back(maker_.make({.src_port = static_cast<std::uint16_t>(1000 + flow)}, i * 1ms));
      }
    }
    Receiver receiver(options_);
    receiver.give(chunk(all_, maker_.origin("a", "1")));
    receiver.flush();
    all_ = chunk(all_, maker_.origin("a", "1"));
    std::vector<Ticket> tickets = receiver.take_tickets();
    for (Ticket& ticket : tickets) ticket.agent = "a";  // the receiver's own text goes with it
    return tickets;
  }
  [[nodiscard]] SeenMap expected() const { return Oracle(all_, options_).sessions; }
  long long indexed() { return number({"ZCARD", index_}); }

  /// Time moves, without any ticket.
  static void tick(Claimer& claimer) {
    claimer.context.manual_clock.advance(1s);
    Batch<Ticket> nothing;
    Output<Session> out(claimer.recorder);
    persist([&] { claimer.stage().process(nothing, out); });
  }
  /// What it claims until `enough` is true.
  template <class Enough>
  static SeenMap claim_without_tickets(Claimer& claimer, Enough enough,
                                       Outcome outcome = Outcome::done) {
    SeenMap got;
    const auto until = std::chrono::steady_clock::now() + 20s;
    while (!enough(got) && std::chrono::steady_clock::now() < until) {
      tick(claimer);
      for (auto& [id, text] : claimer.take(outcome)) {
        if (!got.emplace(id, text).second) got[id] += " AGAIN";
      }
      std::this_thread::sleep_for(1ms);
    }
    EXPECT_TRUE(enough(got));
    return got;
  }
  static auto at_least(std::size_t count) {
    return [count](const SeenMap& got) { return got.size() >= count; };
  }
  void expect_all_done() {
    const auto until = std::chrono::steady_clock::now() + 10s;
    while (indexed() != 0 && std::chrono::steady_clock::now() < until) {
      std::this_thread::sleep_for(1ms);
    }
    EXPECT_EQ(indexed(), 0);
    EXPECT_EQ(waiting(), 0);
  }

  const std::string index_ = "{millrace:0}w";
  std::vector<Packet> all_;
};

TEST_F(OverdueTest, SessionsWhoseTicketsAreLostAreClaimedWithoutThem) {
  const auto tickets = sessions(200);
  EXPECT_EQ(indexed(), 200);
  Claimer claimer(claim_options_);
  EXPECT_EQ(claim_without_tickets(claimer, at_least(200)), expected());
  expect_all_done();
  EXPECT_EQ(claimer.context.counter("overdue").value(), 200U);
  EXPECT_THAT(claimer.context.failing("lost"), IsEmpty());
  // They come after all.
  claimer.give(tickets);
  EXPECT_EQ(claimer.context.dropped_for("already-done"), 200U);
  EXPECT_TRUE(claimer.take().empty());
}

TEST_F(OverdueTest, FullAndFollowedSessionsAreToo) {
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 24; ++i) {
      all_.push_back(maker_.make({.payload = "r", .tcp = true, .flags = i == 0 ? kTcpSyn : kTcpAck},
                                 round * 1s));
    }
  }
  Receiver receiver(options_);
  receiver.give(all_);
  receiver.flush();
  receiver.take_tickets();
  EXPECT_EQ(indexed(), 3);
  Claimer claimer(claim_options_);
  EXPECT_EQ(claim_without_tickets(claimer, at_least(3)), expected());
  expect_all_done();
}

TEST_F(OverdueTest, SeveralAnalysersClaimEachSessionOnce) {
  sessions(500);
  constexpr std::size_t kClaimers = 4;
  claim_options_.batch = 16;
  std::deque<Claimer> claimers;
  for (std::size_t i = 0; i < kClaimers; ++i) claimers.emplace_back(claim_options_);
  std::vector<SeenMap> got(kClaimers);
  std::atomic<std::size_t> total = 0;
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < kClaimers; ++i) {
      threads.emplace_back([&, i] {
        std::size_t mine = 0;
        got[i] = claim_without_tickets(claimers[i], [&](const SeenMap& so_far) {
          total += so_far.size() - std::exchange(mine, so_far.size());
          return total >= 500;
        });
      });
    }
  }
  SeenMap all;
  for (const SeenMap& one : got) {
    for (const auto& [id, text] : one) EXPECT_TRUE(all.emplace(id, text).second) << text;
  }
  EXPECT_EQ(all, expected());
  expect_all_done();
}

TEST_F(OverdueTest, SessionThatIsNotDueOrLeasedIsLeftAlone) {
  options_.delay = 1h;
  const auto tickets = sessions(2);
  const auto now = [&] {
    return std::stod(std::string(text_of(*ask({"TIME"})->element[0]))) * 1000;
  };
  const auto scores = [&] {
    std::vector<double> found;
    const RedisReply reply = ask({"ZRANGE", index_, "0", "-1", "WITHSCORES"});
    for (std::size_t i = 1; i < reply->elements; i += 2) {
      found.push_back(std::stod(std::string(text_of(*reply->element[i]))));
    }
    return found;
  };
  const double begun = now();
  EXPECT_THAT(scores(), ::testing::Each(::testing::AllOf(::testing::Gt(begun + 3'500'000),
                                                         ::testing::Lt(begun + 3'700'000))));
  claim_options_.lease = 10min;
  Claimer one(claim_options_);
  one.give(tickets);
  EXPECT_EQ(one.recorder.items().size(), 2U);
  EXPECT_THAT(scores(), ::testing::Each(::testing::AllOf(::testing::Gt(begun + 500'000),
                                                         ::testing::Lt(begun + 700'000))));
  Claimer other(claim_options_);
  tick(other);
  EXPECT_EQ(other.recorder.items().size(), 0U);
  one.take();
  one.wait(1);
  EXPECT_EQ(indexed(), 0);
}

TEST_F(OverdueTest, FullSessionIsOverdueThoughItsDelayIsLong) {
  options_.delay = 1h;
  sessions(3, 24);
  Claimer claimer(claim_options_);
  EXPECT_EQ(claim_without_tickets(claimer, at_least(3)), expected());
  expect_all_done();
}

TEST_F(OverdueTest, SessionsOfAnAnalyserThatDiedAreClaimedWithoutTickets) {
  const auto tickets = sessions(5);
  claim_options_.lease = 10ms;
  {
    Claimer dies(claim_options_);
    dies.give(tickets);
    dies.close();
  }
  claim_options_.lease = 1min;
  Claimer other(claim_options_);
  EXPECT_EQ(claim_without_tickets(other, at_least(5)), expected());
  expect_all_done();
}

TEST_F(OverdueTest, FailureMakesThemOverdueAgain) {
  sessions(4);
  Claimer claimer(claim_options_);
  EXPECT_EQ(claim_without_tickets(claimer, at_least(4), Outcome::failed), expected());
  EXPECT_EQ(claim_without_tickets(claimer, at_least(4)), expected());
  expect_all_done();
}

TEST_F(OverdueTest, EveryBucketIsLookedAt) {
  options_.buckets = claim_options_.buckets = 7;
  sessions(100);
  Claimer claimer(claim_options_);
  EXPECT_EQ(claim_without_tickets(claimer, at_least(100)), expected());
}

TEST_F(OverdueTest, SessionsThatAreDeletedAreLostAndSaidToBe) {
  sessions(5);
  const auto lists = keys("*}s*");
  ASSERT_EQ(lists.size(), 5U);
  ask({"DEL", lists[0]});
  ask({"DEL", lists[1]});
  Claimer claimer(claim_options_);
  EXPECT_EQ(claim_without_tickets(claimer, at_least(3)).size(), 3U);
  expect_all_done();
  EXPECT_EQ(claimer.context.counter("lost").value(), 2U);
  EXPECT_THAT(claimer.context.failing("lost"), HasSubstr("2 sessions are lost"));
}

TEST_F(OverdueTest, TicketWhoseSessionIsGoneIsLostUnlessItMayHaveBeenDoneLongAgo) {
  const auto tickets = sessions(1);
  ask({"DEL", keys("*}s*")[0], index_});
  {
    Claimer claimer(claim_options_);
    claimer.give(tickets);
    EXPECT_EQ(claimer.context.dropped_for("lost"), 1U);
    EXPECT_EQ(claimer.context.dropped_for("unknown"), 0U);
    EXPECT_EQ(claimer.context.counter("lost").value(), 1U);
    EXPECT_THAT(claimer.context.failing("lost"), HasSubstr("1 sessions are lost"));
  }
  // What was done before is forgotten by now.
  ask({"HSET", "millrace:meta", "created", "1000000"});
  Claimer claimer(claim_options_);
  claimer.give(tickets);
  EXPECT_EQ(claimer.context.dropped_for("unknown"), 1U);
  EXPECT_EQ(claimer.context.counter("lost").value(), 0U);
  EXPECT_THAT(claimer.context.failing("lost"), IsEmpty());
}

TEST_F(OverdueTest, WhatWaitsDoesNotExpireAndWhatIsDoneDoes) {
  Receiver receiver(options_);
  receiver.give(chunk(std::vector<Packet>(30, maker_.make({}, 0s)), maker_.origin("a", "1")));
  std::vector<Packet> list;
  for (int i = 0; i < 30; ++i) {
    list.push_back(
        maker_.make({.src = 9, .tcp = true, .flags = i % 10 == 0 ? kTcpSyn : kTcpAck}, i * 1ms));
  }
  receiver.give(list);
  receiver.give({maker_.make({.src = 8}, 0s)});
  receiver.flush();
  const auto tickets = receiver.take_tickets();
  const auto expect_no_expiry = [&] {
    for (const char* kind : {"*}s*", "*}d*", "*}h*", "*}x*", "*}w"}) {
      EXPECT_FALSE(keys(kind).empty() && std::string_view(kind) != "*}s*") << kind;
      for (const std::string& key : keys(kind)) EXPECT_EQ(number({"TTL", key}), -1) << key;
    }
  };
  expect_no_expiry();
  Claimer claimer(claim_options_);
  claimer.give(tickets);
  expect_no_expiry();
  claimer.take();
  expect_all_done();
  for (const std::string& key : keys("*}d*")) EXPECT_GT(number({"TTL", key}), 0) << key;
  for (const char* kind : {"*}s*", "*}h*", "*}x*", "*}w"}) EXPECT_TRUE(keys(kind).empty()) << kind;
}

TEST_F(OverdueTest, ClaimsMakeRoomInARedisThatIsFull) {
  const auto tickets = sessions(20, 24);
  EXPECT_THAT(keys("*}d*"), ::testing::SizeIs(20));
  ask({"CONFIG", "SET", "maxmemory", "1"});
  Claimer claimer(claim_options_);
  claimer.give(tickets);
  EXPECT_EQ(claimer.take(), expected());
  claimer.wait(1);
  EXPECT_EQ(claimer.receipts.done(), 1);
  expect_all_done();
}

}  // namespace
}  // namespace millrace
