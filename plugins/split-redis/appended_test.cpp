// Packets that are appended to their session's list past its state, and what others may have done
// to the session meanwhile.

#include "redis_fixture.h"

namespace millrace {
namespace {

using ::testing::UnorderedElementsAre;

class AppendedTest : public RedisTest {
 protected:
  /// One UDP packet of five-tuple `port`.
  Packet packet(Duration at, std::uint16_t port = 1000) {
    return maker_.make({.src_port = port, .payload = std::to_string(at.count())}, at);
  }
  std::vector<Packet> packets(int count, Duration at) {
    std::vector<Packet> list;
    for (int i = 0; i < count; ++i) list.push_back(packet(at + i * 1ms));
    return list;
  }
  /// 40 five-tuples of 30 packets each, mixed, as one chunk.
  std::vector<Packet> traffic() {
    std::vector<Packet> list;
    for (int i = 0; i < 1200; ++i) {
      list.push_back(packet(i * 1ms, static_cast<std::uint16_t>(1000 + i * 7 % 40)));
    }
    return chunk(list, maker_.origin("a", "chunk"));
  }
  static std::uint64_t count(Receiver& receiver, const char* name) {
    return receiver.context.counter(name).value();
  }
  static void give_in(Receiver& receiver, const std::vector<Packet>& list, std::size_t size) {
    for (std::size_t i = 0; i < list.size(); i += size) {
      receiver.give({list.begin() + static_cast<std::ptrdiff_t>(i),
                     list.begin() + static_cast<std::ptrdiff_t>(std::min(list.size(), i + size))});
    }
    receiver.flush();
  }
  /// Waits until Redis has executed as many calls of the only receiver.
  void wait_for_calls(std::uint64_t calls) {
    const auto until = std::chrono::steady_clock::now() + 10s;
    for (;;) {
      const auto names = keys("*}q*");
      if (!names.empty() && text_of(*ask({"GET", names[0]})) == std::to_string(calls)) return;
      ASSERT_LT(std::chrono::steady_clock::now(), until);
    }
  }
};

TEST_F(AppendedTest, EverythingBetweenTheFirstPacketAndTheOneThatMakesItFull) {
  Receiver receiver(options_);
  const auto list = packets(30, 0s);
  give_in(receiver, list, 1);
  EXPECT_EQ(count(receiver, "appended"), 22U);
  EXPECT_EQ(receiver.context.handled_items(), 24U);
  EXPECT_EQ(receiver.context.dropped_for("after-due"), 6U);
  EXPECT_EQ(claim(receiver.take_tickets()), Oracle(list, options_).sessions);
}

TEST_F(AppendedTest, ClaimAddsWhatTheStateDoesNotHold) {
  Receiver receiver(options_);
  const auto list = packets(10, 0s);
  give_in(receiver, list, 3);
  EXPECT_EQ(count(receiver, "appended"), 7U);
  EXPECT_EQ(count(receiver, "taken-back"), 0U);
  EXPECT_EQ(claim(receiver.take_tickets()), Oracle(list, options_).sessions);
}

TEST_F(AppendedTest, SessionThatWasClaimedMeanwhileTakesNoMore) {
  Receiver receiver(options_);
  give_in(receiver, packets(5, 0s), 1);
  EXPECT_THAT(claim(receiver.take_tickets()), ::testing::SizeIs(1));
  // It is thought to be open.
  receiver.give(packets(2, 1s));
  receiver.flush();
  EXPECT_EQ(receiver.context.dropped_for("after-due"), 2U);
  EXPECT_EQ(receiver.context.handled_items(), 5U);
  // They have moved its clock: `idle` counts from them.
  receiver.give({packet(1s + options_.idle)});
  receiver.flush();
  EXPECT_EQ(receiver.context.dropped_for("after-due"), 3U);
  receiver.give({packet(2s + 2 * options_.idle)});
  receiver.flush();
  EXPECT_EQ(receiver.context.dropped_for("after-due"), 3U);
  EXPECT_EQ(count(receiver, "sessions"), 2U);
}

TEST_F(AppendedTest, TwoReceiversThatTakeTurnsNoticeThatASessionIsFull) {
  options_.packets = 5;
  Receiver one(options_);
  Receiver two(options_);
  const auto list = packets(7, 0s);
  const auto turn = [](Receiver& receiver, const Packet& p) {
    receiver.give({p});
    receiver.flush();
  };
  turn(one, list[0]);
  turn(one, list[1]);
  turn(two, list[2]);  // hears that there are three
  turn(one, list[3]);  // thinks that there are three
  turn(two, list[4]);  // thinks that there are four
  auto tickets = two.take_tickets();
  EXPECT_EQ(tickets.size(), 1U);
  turn(one, list[5]);
  turn(two, list[6]);
  EXPECT_EQ(one.context.dropped_for("after-due") + two.context.dropped_for("after-due"), 2U);
  for (const Ticket& t : one.take_tickets()) tickets.push_back(t);
  std::vector<Due> why;
  for (const Ticket& t : tickets) why.push_back(t.why);
  EXPECT_THAT(why, UnorderedElementsAre(Due::timeout, Due::full));
  EXPECT_EQ(claim(tickets), Oracle(list, options_).sessions);
}

TEST_F(AppendedTest, ChunkThatAnotherReceiverHadHalfOf) {
  const auto list = traffic();
  std::vector<Ticket> tickets;
  Receiver one(options_);
  give_in(one, {list.begin(), list.begin() + 500}, 120);  // and dies
  EXPECT_GT(count(one, "appended"), 0U);
  Receiver two(options_);
  // Not waited for: until an answer comes it takes all sessions for new.
  give_in(two, list, 300);
  for (Receiver* receiver : {&one, &two}) {
    for (const Ticket& t : receiver->take_tickets()) tickets.push_back(t);
  }
  EXPECT_EQ(claim(tickets), Oracle(list, options_).sessions);
}

TEST_F(AppendedTest, AnswersThatAreLostAddNothingTwice) {
  const auto list = traffic();
  Receiver receiver(options_);
  // So many that they are not waited for.
  receiver.give({list.begin(), list.begin() + 256});
  receiver.flush();
  wait_for_calls(1);
  receiver.give({list.begin() + 256, list.begin() + 520});
  wait_for_calls(2);
  ask({"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"});
  receiver.give({list.begin() + 520, list.end()});
  receiver.flush();
  EXPECT_EQ(count(receiver, "reconnects"), 1U);
  EXPECT_GT(count(receiver, "appended"), 0U);
  EXPECT_EQ(count(receiver, "taken-back"), 0U);
  EXPECT_EQ(receiver.context.handled_items(), 960U);
  EXPECT_EQ(receiver.context.dropped_for("after-due"), 240U);
  EXPECT_EQ(claim(receiver.take_tickets()), Oracle(list, options_).sessions);
}

TEST_F(AppendedTest, CallAfterOneThatWasRefusedIsTakenBack) {
  const auto list = traffic();
  Receiver receiver(options_);
  receiver.give({list.begin(), list.begin() + 100});
  receiver.flush();
  // As if the call before the next one had been refused while it was under way.
  for (const std::string& key : keys("*}q*")) ask({"SET", key, "0"});
  receiver.give({list.begin() + 100, list.begin() + 360});
  receiver.give({list.begin() + 360, list.end()});
  receiver.flush();
  EXPECT_GT(count(receiver, "appended"), 0U);
  EXPECT_EQ(receiver.receipts.failed(), 0);
  EXPECT_EQ(receiver.context.handled_items(), 960U);
  EXPECT_EQ(claim(receiver.take_tickets()), Oracle(list, options_).sessions);
}

TEST_F(AppendedTest, RedisThatIsFullAppendsNothing) {
  const auto list = traffic();
  Receiver receiver(options_);
  receiver.give({list.begin(), list.begin() + 100});
  receiver.flush();
  ask({"CONFIG", "SET", "maxmemory", "1"});
  receiver.give({list.begin() + 100, list.begin() + 360});
  receiver.give({list.begin() + 360, list.end()});
  Output<Ticket> out(receiver.recorder);
  EXPECT_THROW(receiver.stage().flush(out), Transient);
  ask({"CONFIG", "SET", "maxmemory", "0"});
  receiver.flush();
  EXPECT_GT(count(receiver, "appended"), 0U);
  EXPECT_EQ(count(receiver, "taken-back"), 0U);
  EXPECT_EQ(receiver.context.handled_items(), 960U);
  EXPECT_EQ(claim(receiver.take_tickets()), Oracle(list, options_).sessions);
}

TEST_F(AppendedTest, NothingWhenNothingIsRemembered) {
  options_.known = 0;
  const auto list = traffic();
  Receiver receiver(options_);
  give_in(receiver, list, 100);
  EXPECT_EQ(claim(receiver.take_tickets()), Oracle(list, options_).sessions);
}

}  // namespace
}  // namespace millrace
