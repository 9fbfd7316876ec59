// Keys that are somebody else's.

#include "redis_fixture.h"

namespace millrace {
namespace {

class WrongTypeTest : public RedisTest {
 protected:
  std::vector<Packet> traffic() {
    std::vector<Packet> list;
    for (int i = 0; i < 30; ++i) {
      for (int flow = 0; flow < 6; ++flow) {
        if (i <= flow * 6) {
          list.push_back(
              maker_.make({.src_port = static_cast<std::uint16_t>(1000 + flow)}, i * 1ms));
        }
      }
    }
    return chunk(list, maker_.origin("a", "1"));
  }
  std::vector<Ticket> split(const std::vector<Packet>& list) {
    Receiver receiver(options_);
    receiver.give(list);
    receiver.flush();
    set_aside_ = receiver.context.counter("set-aside").value();
    auto tickets = receiver.take_tickets();
    for (Ticket& ticket : tickets) ticket.agent = "a";
    return tickets;
  }
  /// A key gets another type than ours have.
  void make_wrong(const std::string& key) {
    ask({"DEL", key});
    ask({"GEOADD", key, "1", "1", "x"});
    if (std::string_view("ow").find(kind(key)) != std::string_view::npos) {
      ask({"DEL", key});
      ask({"SET", key, "somebody's"});
    }
  }

  std::uint64_t set_aside_ = 0;
};

TEST_F(WrongTypeTest, SessionsWhoseKeysAreTakenAreThereAllTheSame) {
  const auto list = traffic();
  // Which keys there are while sessions wait.
  split(list);
  auto names = keys("{*");
  names.emplace_back("{millrace:0}o");  // while tickets are not safe
  std::string kinds;
  for (const std::string& key : names) {
    if (std::string_view("sdow").find(kind(key)) == std::string_view::npos) continue;
    SCOPED_TRACE(kind(key));
    kinds += kind(key);
    ask({"FLUSHALL"});
    make_wrong(key);
    const auto tickets = split(list);
    EXPECT_EQ(set_aside_, 1U);
    EXPECT_EQ(
        number({"EXISTS", key.substr(0, key.find('}') + 1) + "!" + key.substr(key.find('}') + 1)}),
        1);
    EXPECT_EQ(claim(tickets), Oracle(list, options_).sessions);
  }
  for (const char kind : std::string("sdow"))
    EXPECT_NE(kinds.find(kind), std::string::npos) << kind;
}

TEST_F(WrongTypeTest, KeysThatAreTakenWhileSessionsWaitStopNobody) {
  const auto list = traffic();
  split(list);
  for (const std::string& taken : keys("{*")) {
    SCOPED_TRACE(kind(taken));
    ask({"FLUSHALL"});
    Receiver receiver(options_);
    receiver.give({list.begin(), list.begin() + 60});
    receiver.tick();
    make_wrong(taken);
    receiver.give({list.begin() + 60, list.end()});
    receiver.flush();
    const auto tickets = receiver.take_tickets();
    make_wrong(taken);
    Claimer claimer(claim_options_);
    claimer.give(tickets);
    const std::size_t got = claimer.recorder.items().size();
    EXPECT_GE(got, 5U);  // whose session it was is lost
    make_wrong(taken);
    claimer.take();
    claimer.wait(1);
    EXPECT_EQ(claimer.receipts.done(), 1);
  }
}

TEST_F(WrongTypeTest, RecordThatIsSomebodyElsesIsSetAside) {
  ask({"SET", "millrace:meta", "x"});
  ask({"SET", "millrace:prefixes", "x"});
  const auto list = traffic();
  { Claimer claimer(claim_options_); }
  EXPECT_EQ(claim(split(list)), Oracle(list, options_).sessions);
  EXPECT_EQ(set_aside_, 1U);
  EXPECT_EQ(text_of(*ask({"GET", "millrace:!meta"})), "x");
}

}  // namespace
}  // namespace millrace
