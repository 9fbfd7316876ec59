#include <atomic>

#include "redis_fixture.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

class ReceiverTest : public RedisTest {
 protected:
  /// `count` UDP packets of one five-tuple, 1 ms apart.
  std::vector<Packet> packets(int count, Duration at = 0s, const std::string& payload = "same",
                              std::uint16_t port = 1000) {
    std::vector<Packet> list;
    for (int i = 0; i < count; ++i) {
      list.push_back(maker_.make({.src_port = port, .payload = payload}, at + i * 1ms));
    }
    return list;
  }
  static std::vector<Due> reasons(const std::vector<Ticket>& tickets) {
    std::vector<Due> why;
    for (const Ticket& ticket : tickets) why.push_back(ticket.why);
    return why;
  }
  static std::string only(const SeenMap& sessions) {
    EXPECT_EQ(sessions.size(), 1U);
    return sessions.empty() ? "" : sessions.begin()->second;
  }
  /// What a receiver of its own makes of the packets.
  std::vector<Ticket> split(const std::vector<Packet>& list) {
    Receiver receiver(options_);
    receiver.give(list);
    receiver.flush();
    std::vector<Ticket> tickets = receiver.take_tickets();
    for (Ticket& ticket : tickets) {
      ticket.agent = maker_.origin(std::string(ticket.agent), "")->agent;
    }
    return tickets;
  }
  /// Gives two packets of each session as one batch.
  void expect_several_calls(std::uint16_t sessions, const std::string& payload) {
    std::vector<Packet> list;
    for (int turn = 0; turn < 2; ++turn) {
      for (std::uint16_t port = 1; port <= sessions; ++port) {
        list.push_back(maker_.make({.src_port = port, .payload = payload}, turn * 1s));
      }
    }
    Receiver receiver(options_);
    receiver.give(list);
    receiver.flush();
    EXPECT_GT(receiver.context.counter("calls").value(), 2U);
    EXPECT_EQ(receiver.receipts.pending(), 1);  // until the tickets are safe
    std::vector<Ticket> tickets = receiver.take_tickets();
    EXPECT_EQ(tickets.size(), sessions);
    EXPECT_EQ(receiver.receipts.done(), 1);
    EXPECT_EQ(claim(tickets), Oracle(list, options_).sessions);
  }
};

TEST_F(ReceiverTest, ExactlyAsManyPacketsAsMakeASessionFull) {
  const auto list = packets(24);
  const auto tickets = split(list);
  // Full in the batch in which it began: one ticket says it all.
  EXPECT_THAT(reasons(tickets), ElementsAre(Due::full));
  EXPECT_EQ(claim(tickets), Oracle(list, options_).sessions);
}

TEST_F(ReceiverTest, OnePacketIsAnnouncedAndClaimed) {
  const auto list = packets(1);
  const auto tickets = split(list);
  EXPECT_THAT(reasons(tickets), ElementsAre(Due::timeout));
  EXPECT_EQ(claim(tickets), Oracle(list, options_).sessions);
}

TEST_F(ReceiverTest, BatchOfManyFiveTuplesGoesInSeveralCalls) {
  expect_several_calls(5000, "same");
}

TEST_F(ReceiverTest, BatchOfManyBytesGoesInSeveralCalls) {
  expect_several_calls(20, std::string(60000, 'x'));
}

TEST_F(ReceiverTest, EqualPayloadsAtOneTimeAreDifferentPackets) {
  std::vector<Packet> list;
  for (int i = 0; i < 24; ++i) list.push_back(maker_.make({.payload = "equal"}, 0s));
  const auto tickets = split(list);
  EXPECT_THAT(reasons(tickets), ElementsAre(Due::full));
  const auto sessions = claim(tickets);
  EXPECT_EQ(sessions, Oracle(list, options_).sessions);
  EXPECT_THAT(only(sessions), ::testing::HasSubstr("packets 24 of 24"));
}

TEST_F(ReceiverTest, SessionThatFillsLaterIsAnnouncedTwiceAndClaimedOnce) {
  Receiver receiver(options_);
  receiver.give(packets(10));
  receiver.give(packets(14, 1s));
  receiver.give(packets(50, 2s));  // surplus announces nothing
  receiver.flush();
  const auto tickets = receiver.take_tickets();
  EXPECT_THAT(reasons(tickets), ElementsAre(Due::timeout, Due::full));
  EXPECT_EQ(receiver.context.dropped_for("after-due"), 50U);
  EXPECT_EQ(receiver.context.handled_items(), 24U);
  EXPECT_THAT(only(claim(tickets, 1)), ::testing::HasSubstr("packets 24 of 24"));
  EXPECT_EQ(claimed_done_, 1U);
}

TEST_F(ReceiverTest, SurplusIsSentWithoutItsBytes) {
  Receiver receiver(options_);
  receiver.give(packets(24));
  receiver.give(packets(100, 1s, std::string(1000, 'x')));
  receiver.flush();
  EXPECT_EQ(receiver.context.counter("sent-without-bytes").value(), 100U);
  EXPECT_EQ(receiver.context.dropped_for("after-due"), 100U);
}

TEST_F(ReceiverTest, PacketsThatWentWithoutBytesAreSentAgainIfAnotherReceiverBeganASession) {
  const auto tcp = [&](Duration at, std::uint8_t flags, const char* payload) {
    return maker_.make({.payload = payload, .tcp = true, .flags = flags}, at);
  };
  options_.packets = 2;
  Receiver one(options_);
  Receiver two(options_);
  one.give({tcp(0s, kTcpAck, "a"), tcp(1ms, kTcpAck, "b")});
  two.give({tcp(1s, kTcpSyn, "c")});
  one.give({tcp(2s, kTcpAck, "d")});  // takes the session for due
  one.flush();
  EXPECT_EQ(one.context.counter("sent-without-bytes").value(), 1U);
  EXPECT_EQ(one.context.handled_items(), 3U);
  EXPECT_EQ(one.context.dropped_for("after-due"), 0U);
  EXPECT_EQ(one.receipts.pending(), 2);  // two tickets
  auto tickets = one.take_tickets();
  EXPECT_EQ(one.receipts.done(), 2);
  for (const Ticket& t : two.take_tickets()) tickets.push_back(t);
  const auto sessions = claim(tickets);
  EXPECT_EQ(sessions, Oracle({tcp(0s, kTcpAck, "a"), tcp(1ms, kTcpAck, "b"), tcp(1s, kTcpSyn, "c"),
                              tcp(2s, kTcpAck, "d")},
                             options_)
                          .sessions);
}

TEST_F(ReceiverTest, SessionThatBeginsAgainAfterItWasDone) {
  const auto first = packets(30);
  auto tickets = split(first);
  const auto done = claim(tickets);
  EXPECT_EQ(done, Oracle(first, options_).sessions);
  EXPECT_THAT(reasons(split(packets(5, 10s))), ElementsAre());  // still remembered
  auto all = first;
  for (const Packet& p : packets(5, 10s)) all.push_back(p);
  const auto again = packets(7, 200s);
  all.insert(all.end(), again.begin(), again.end());
  tickets = split(again);
  EXPECT_THAT(reasons(tickets), ElementsAre(Due::timeout));
  auto both = done;
  for (const auto& [id, text] : claim(tickets)) both.emplace(id, text);
  EXPECT_EQ(both.size(), 2U);
  EXPECT_EQ(both, Oracle(all, options_).sessions);
}

TEST_F(ReceiverTest, SynOpensTheNextEpochWhileTheFirstStillWaits) {
  std::vector<Packet> list;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 24; ++i) {
      list.push_back(maker_.make({.payload = "r", .tcp = true, .flags = i == 0 ? kTcpSyn : kTcpAck},
                                 round * 1s + i * 1ms));
    }
  }
  const auto tickets = split(list);
  EXPECT_EQ(tickets.size(), 3U);
  const auto sessions = claim(tickets);
  EXPECT_EQ(sessions.size(), 3U);
  EXPECT_EQ(sessions, Oracle(list, options_).sessions);
  const auto left = kinds();
  EXPECT_FALSE(left.contains('h'));
  EXPECT_EQ(waiting(), 0);
}

TEST_F(ReceiverTest, TwoAgentsThatSeeTheSameFiveTuple) {
  std::vector<Packet> list;
  const Origin* a = maker_.origin("a", "1");
  const Origin* b = maker_.origin("b", "1");
  for (Packet p : chunk(packets(24), a)) list.push_back(p);
  for (Packet p : chunk(packets(3, 0s, "other"), b)) list.push_back(p);
  const auto tickets = split(list);
  const auto sessions = claim(tickets);
  EXPECT_EQ(sessions.size(), 2U);
  EXPECT_EQ(sessions, Oracle(list, options_).sessions);
}

TEST_F(ReceiverTest, ChunkThatComesAgainAddsNothing) {
  options_.packets = 4;
  const Origin* origin = maker_.origin("a", "chunk");
  std::vector<Packet> list = packets(3);
  for (const Packet& p : packets(9, 0s, "second", 2000)) list.push_back(p);
  for (const Packet& p : packets(2, 20s, "third", 3000)) list.push_back(p);
  list = chunk(list, origin);
  const Oracle oracle(list, options_);
  std::vector<Ticket> tickets;
  Receiver one(options_);
  one.give({list.begin(), list.begin() + 8});  // dies before the rest
  one.flush();
  for (const Ticket& t : one.take_tickets()) tickets.push_back(t);

  Receiver two(options_);  // gets the whole
  two.give(list);
  two.flush();
  EXPECT_EQ(two.context.dropped_for("repeated"), 8U);
  for (const Ticket& t : two.take_tickets()) tickets.push_back(t);
  for (int i = 0; i < 2; ++i) {
    one.give(list);
    one.flush();
    EXPECT_TRUE(one.take_tickets().empty());
  }
  EXPECT_EQ(one.context.dropped_for("repeated"), 2 * list.size());
  EXPECT_EQ(claim(tickets), oracle.sessions);
  // Also when all is done.
  two.give(list);
  two.flush();
  EXPECT_TRUE(two.take_tickets().empty());
  EXPECT_EQ(two.context.dropped_for("repeated"), 8 + list.size());
}

TEST_F(ReceiverTest, PacketsOfOtherFiveTuplesHaveNoPartInWhenASessionIsDue) {
  std::vector<Packet> list = packets(1);
  auto tickets = split(chunk(list, maker_.origin("a", "1")));
  split(chunk(packets(1, 24h * 365 * 50, "x", 2000), maker_.origin("a", "2")));
  const auto later = packets(1, 1s);
  EXPECT_TRUE(split(chunk(later, maker_.origin("a", "3"))).empty());
  list.push_back(later[0]);
  list[0].origin = list[1].origin = maker_.origin("a", "");
  EXPECT_EQ(claim(tickets), Oracle(list, options_).sessions);
}

/// A question and an answer every ten minutes, and among them what has another time.
TEST_F(ReceiverTest, OneWrongTimeDoesNotOutliveItsPacketInRedis) {
  const auto exchange = [&](Duration at) { return packets(2, at); };
  std::vector<Packet> list = exchange(0s);
  list.insert(list.begin(), packets(1, 24h * 365 * 80, "odd", 2000)[0]);
  std::vector<Ticket> tickets;
  std::vector<Packet> all;
  int number = 0;
  for (const auto& chunks : {list, exchange(10min), exchange(20min)}) {
    // Each through a receiver of its own, as after a restart.
    const auto mine = chunk(chunks, maker_.origin("a", std::to_string(number++)));
    all.insert(all.end(), mine.begin(), mine.end());
    for (const Ticket& one : split(mine)) tickets.push_back(one);
  }
  EXPECT_EQ(tickets.size(), 4U);
  const auto sessions = claim(tickets);
  EXPECT_EQ(sessions.size(), 4U);
  EXPECT_EQ(sessions, Oracle(all, options_).sessions);
}

TEST_F(ReceiverTest, FragmentsFindTheirSessionThroughRedis) {
  const Packet first = maker_.make({.payload = "first part", .fragment = 0x2000, .id = 7}, 0s);
  const Packet later = maker_.make({.payload = "rest", .fragment = 0x0003, .id = 7}, 1ms);
  const Packet other = maker_.make({.payload = "rest", .fragment = 0x0003, .id = 8}, 2ms);
  auto tickets = split(chunk({first}, maker_.origin("a", "1")));
  Receiver receiver(options_);
  receiver.give(chunk({later, other}, maker_.origin("a", "2")));
  receiver.give(chunk({later}, maker_.origin("b", "1")));  // not b's
  receiver.flush();
  EXPECT_EQ(receiver.context.counter("joined-fragments").value(), 1U);
  EXPECT_EQ(receiver.context.dropped_for("lost-fragment"), 2U);
  Packet mine[] = {first, later};
  mine[0].origin = mine[1].origin = maker_.origin("a", "");
  EXPECT_EQ(claim(tickets), Oracle({mine[0], mine[1]}, options_).sessions);
}

TEST_F(ReceiverTest, LimitHoldsWithEightWriters) {
  constexpr int kWriters = 8;
  constexpr int kFlows = 20;
  std::vector<std::vector<std::vector<Packet>>> work(kWriters);
  for (int writer = 0; writer < kWriters; ++writer) {
    const Origin* origin = maker_.origin("a", "chunk-" + std::to_string(writer));
    std::vector<Packet> list;
    for (int i = 0; i < 10; ++i) {
      for (int flow = 0; flow < kFlows; ++flow) {
        list.push_back(packets(1, i * 1ms, "w" + std::to_string(writer),
                               static_cast<std::uint16_t>(1000 + flow))[0]);
      }
    }
    list = chunk(list, origin);
    for (std::size_t i = 0; i < list.size(); i += 7) {
      work[static_cast<std::size_t>(writer)].emplace_back(
          list.begin() + static_cast<std::ptrdiff_t>(i),
          list.begin() + static_cast<std::ptrdiff_t>(std::min(list.size(), i + 7)));
    }
  }
  std::deque<Receiver> receivers;
  for (int i = 0; i < kWriters; ++i) receivers.emplace_back(options_);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kWriters; ++i) {
    threads.emplace_back([&, i] {
      for (auto& batch : work[i]) receivers[i].give(batch);
      receivers[i].flush();
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<Ticket> tickets;
  std::uint64_t stored = 0;
  std::uint64_t after_due = 0;
  std::uint64_t taken_back = 0;
  for (Receiver& receiver : receivers) {
    for (const Ticket& t : receiver.take_tickets()) tickets.push_back(t);
    stored += receiver.context.handled_items();
    after_due += receiver.context.dropped_for("after-due");
    taken_back += receiver.context.counter("taken-back").value();
  }
  EXPECT_EQ(stored - taken_back, kFlows * 24U);
  EXPECT_EQ(after_due + taken_back, kFlows * (kWriters * 10U - 24U));
  std::map<std::string, std::vector<Due>> announced;
  for (const Ticket& t : tickets) announced[to_hex(t.id)].push_back(t.why);
  EXPECT_EQ(announced.size(), kFlows);
  for (auto& [id, why] : announced) {
    EXPECT_THAT(why, ::testing::AnyOf(UnorderedElementsAre(Due::timeout, Due::full),
                                      ElementsAre(Due::full)));
  }
  const auto sessions = claim(tickets);
  EXPECT_EQ(sessions.size(), kFlows);
  for (const auto& [id, text] : sessions) {
    EXPECT_THAT(text, ::testing::HasSubstr("packets 24 of 24"));
    EXPECT_THAT(text, ::testing::Not(::testing::HasSubstr("AGAIN")));
  }
}

TEST_F(ReceiverTest, PayloadOfAnyBytes) {
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  all = std::string(3, '\0') + "\r\n$5\r\n" + all + std::string(3, '\0');
  const std::vector<Packet> list = {maker_.make({.payload = all}, 0s),
                                    maker_.make({.payload = ""}, 1ms)};
  EXPECT_EQ(claim(split(list)), Oracle(list, options_).sessions);
}

TEST_F(ReceiverTest, UndecodablePacketsAreCountedAndAcknowledged) {
  Receiver receiver(options_);
  receiver.give({maker_.raw(std::string(20, '\x11'), 0s)});
  receiver.flush();
  EXPECT_EQ(receiver.receipts.done(), 1);
  EXPECT_EQ(receiver.context.all_dropped().size(), 1U);
}

TEST_F(ReceiverTest, ReceiptWaitsForTheTickets) {
  Receiver receiver(options_);
  receiver.give(packets(1));
  receiver.give(packets(1, 1ms));  // no ticket of its own
  receiver.tick();
  EXPECT_EQ(receiver.receipts.pending(), 1);
  EXPECT_EQ(receiver.receipts.done(), 1);
  EXPECT_EQ(kinds()['o'], 1);
  receiver.take_tickets();
  EXPECT_EQ(receiver.receipts.done(), 2);
  receiver.tick();  // clears the outbox
  const auto left = kinds();
  EXPECT_FALSE(left.contains('o'));
  EXPECT_FALSE(left.contains('t'));
}

TEST_F(ReceiverTest, TicketsThatWereNotPublishedAreAnnouncedByAnyReceiver) {
  options_.sweep_after = 50ms;
  options_.sweep = 10ms;
  std::vector<Ticket> first;
  {
    Receiver dead(options_);
    dead.give(packets(3));
    dead.give(packets(24, 0s, "x", 2000));
    dead.flush();
    ASSERT_EQ(dead.recorder.batches.size(), 2U);
    EXPECT_EQ(dead.receipts.pending(), 2);
    dead.recorder.batches.clear();  // it dies before its tickets are published
    EXPECT_EQ(dead.receipts.failed(), 2);
  }
  Receiver other(options_);
  const auto until = std::chrono::steady_clock::now() + 10s;
  while (other.recorder.items().size() < 2 && std::chrono::steady_clock::now() < until) {
    other.context.manual_clock.advance(10ms);
    other.tick();
    std::this_thread::sleep_for(5ms);
  }
  ASSERT_EQ(other.recorder.items().size(), 2U);
  EXPECT_EQ(other.context.counter("announced-again").value(), 2U);
  // While they are on their way nobody announces them once more.
  Receiver third(options_);
  for (int i = 0; i < 20; ++i) {
    other.context.manual_clock.advance(10ms);
    other.tick();
    third.context.manual_clock.advance(10ms);
    third.tick();
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_EQ(third.recorder.items().size(), 0U);
  const auto tickets = other.take_tickets();
  other.tick();
  EXPECT_FALSE(kinds().contains('o'));
  EXPECT_EQ(claim(tickets).size(), 2U);
}

TEST_F(ReceiverTest, EveryKeyThatIsNotASessionToBeAnalysedExpires) {
  Receiver receiver(options_);
  receiver.give(chunk(packets(30), maker_.origin("a", "1")));
  receiver.give(chunk({maker_.make({.fragment = 0x2000}, 0s)}, maker_.origin("b", "1")));
  receiver.tick();
  const auto while_open = kinds();
  for (const char kind : std::string("otqf")) {
    EXPECT_TRUE(while_open.contains(kind)) << kind;
    for (const std::string& key : keys(std::string("*}") + kind + "*")) {
      EXPECT_GT(number({"TTL", key}), 0) << key;
    }
  }
  claim(receiver.take_tickets());
  receiver.tick();
  expect_every_key_expires();
  const auto left = kinds();
  for (const char kind : std::string("shxotw")) EXPECT_FALSE(left.contains(kind)) << kind;
  for (const std::string& key : keys("*}d*")) {
    EXPECT_LE(number({"TTL", key}), 480);  // idle and remember, and a third
  }
}

TEST_F(ReceiverTest, OutOfMemoryIsTransientAndLosesNothing) {
  Receiver receiver(options_);
  receiver.give(packets(5));
  ask({"CONFIG", "SET", "maxmemory", "1"});
  receiver.give(packets(5, 1s));
  Batch<Packet> tick;
  Output<Ticket> out(receiver.recorder);
  try {
    receiver.stage().process(tick, out);
    FAIL() << "Redis is full";
  } catch (const Transient& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("OOM"));
  }
  ask({"CONFIG", "SET", "maxmemory", "0"});
  receiver.give(packets(14, 2s));
  receiver.flush();
  EXPECT_THAT(reasons(receiver.take_tickets()), ElementsAre(Due::timeout, Due::full));
  EXPECT_EQ(receiver.context.handled_items(), 24U);
}

TEST_F(ReceiverTest, MaxMemoryMakesPacketsWait) {
  options_.max_memory = {1};
  Receiver receiver(options_);
  Batch<Packet> batch(packets(3));
  batch.receipt = receiver.receipts.make();
  Output<Ticket> out(receiver.recorder);
  EXPECT_THROW(receiver.stage().process(batch, out), Transient);
  EXPECT_EQ(batch.items.size(), 3U);
  EXPECT_TRUE(batch.receipt);
}

}  // namespace
}  // namespace millrace
