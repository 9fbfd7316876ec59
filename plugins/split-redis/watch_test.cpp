// Servers whose settings lose sessions, and processes whose settings differ.

#include <filesystem>
#include <fstream>

#include "redis_fixture.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

template <class Condition>
void eventually(Condition condition, const char* what) {
  const auto until = std::chrono::steady_clock::now() + 20s;
  while (!condition()) {
    ASSERT_LT(std::chrono::steady_clock::now(), until) << what;
    std::this_thread::sleep_for(10ms);
  }
}

class WatchTest : public RedisTest {
 protected:
  void TearDown() override {
    if (!services->missing().empty()) return;
    persist([&] {
      ask({"REPLICAOF", "NO", "ONE"});
      ask({"CONFIG", "SET", "maxmemory", "0"});
      ask({"CONFIG", "SET", "maxmemory-policy", "noeviction"});
      ask({"CONFIG", "SET", "appendonly", "yes"});
    });
  }

  /// What refuses to start; empty: nothing does.
  template <class InOperation, class Options>
  static std::string refusal(const Options& options) {
    try {
      InOperation stage(options);
    } catch (const ConfigError& error) {
      return error.option() + ": " + error.what();
    }
    return "";
  }
  static std::vector<std::string> texts(const testing::TestContext& context) {
    std::vector<std::string> texts;
    for (const auto& [level, text] : context.messages()) {
      if (text.find("clock") == std::string::npos) texts.push_back(text);
    }
    return texts;
  }
  std::vector<Packet> packets(int flow = 0) {
    return {maker_.make({.src_port = static_cast<std::uint16_t>(1000 + flow)}, 0s)};
  }
};

TEST_F(WatchTest, PolicyThatEvictsIsRefusedAtTheStart) {
  for (const char* policy : {"allkeys-lru", "volatile-ttl"}) {
    ask({"CONFIG", "SET", "maxmemory-policy", policy});
    const auto told = AllOf(HasSubstr("server: "), HasSubstr(policy),
                            HasSubstr("set 'maxmemory-policy noeviction'"));
    EXPECT_THAT(refusal<Receiver>(options_), told);
    EXPECT_THAT(refusal<Claimer>(claim_options_), told);
  }
  ask({"CONFIG", "SET", "maxmemory-policy", "noeviction"});
  EXPECT_EQ(refusal<Receiver>(options_), "");
}

TEST_F(WatchTest, PolicyThatIsChangedWhileRunningIsReportedUntilItIsMended) {
  Receiver receiver(options_);
  Claimer claimer(claim_options_);
  for (int round = 0; round < 2; ++round) {
    ask({"CONFIG", "SET", "maxmemory-policy", "allkeys-lru"});
    for (auto* context : {&receiver.context, &claimer.context}) {
      eventually([&] { return !context->failing("redis-settings").empty(); }, "reported");
      EXPECT_THAT(context->failing("redis-settings"), HasSubstr("allkeys-lru"));
    }
    ask({"CONFIG", "SET", "maxmemory-policy", "noeviction"});
    for (auto* context : {&receiver.context, &claimer.context}) {
      eventually([&] { return context->failing("redis-settings").empty(); }, "mended");
    }
  }
  receiver.give(packets());
  EXPECT_EQ(claim(receiver.take_tickets()).size(), 1U);
}

TEST_F(WatchTest, MissingAppendOnlyFileIsWarnedOf) {
  ask({"CONFIG", "SET", "appendonly", "no"});
  Receiver receiver(options_);
  EXPECT_THAT(texts(receiver.context), ::testing::Contains(HasSubstr("appendonly yes")));
}

TEST_F(WatchTest, ReplicaIsWaitedForAndTold) {
  ask({"REPLICAOF", "127.0.0.1", "1"});
  Receiver receiver(options_);
  EXPECT_THAT(texts(receiver.context),
              ::testing::Contains(HasSubstr("is a replica of 127.0.0.1:1")));
  Batch<Packet> batch(packets());
  Output<Ticket> out(receiver.recorder);
  EXPECT_THROW(receiver.stage().process(batch, out), Transient);
  ask({"REPLICAOF", "NO", "ONE"});
  receiver.give(packets());
  EXPECT_EQ(receiver.take_tickets().size(), 1U);
  // It becomes one while running.
  ask({"REPLICAOF", "127.0.0.1", "1"});
  eventually([&] { return !receiver.context.failing("redis").empty(); }, "reported");
  EXPECT_THAT(receiver.context.failing("redis"), HasSubstr("is a replica"));
  ask({"REPLICAOF", "NO", "ONE"});
  eventually([&] { return receiver.context.failing("redis").empty(); }, "mended");
}

TEST_F(WatchTest, BucketsThatDifferAreRefusedWithBothValues) {
  options_.buckets = 16;
  Receiver receiver(options_);
  const auto told = AllOf(HasSubstr("buckets: "), HasSubstr("is 1 here"), HasSubstr("and 16 in"),
                          HasSubstr("millrace:meta"));
  EXPECT_THAT(refusal<Claimer>(claim_options_), told);
  options_.buckets = 1;
  EXPECT_THAT(refusal<Receiver>(options_), told);
  // Another prefix is another world.
  options_.prefix = "other";
  EXPECT_EQ(refusal<Receiver>(options_), "");
}

TEST_F(WatchTest, AnalyserThatWasFirstComparesWhenTheReceiverHasCome) {
  Claimer claimer(claim_options_);
  options_.buckets = 2;
  Receiver receiver(options_);
  Batch<Ticket> batch;
  Output<Session> out(claimer.recorder);
  eventually(
      [&] {
        try {
          claimer.stage().process(batch, out);
          return false;
        } catch (const ConfigError& error) {
          EXPECT_EQ(error.option(), "buckets");
          return true;
        }
      },
      "refused");
}

TEST_F(WatchTest, LayersThatDifferAreRefused) {
  Receiver receiver(options_);
  options_.keep = Layer::l4;
  EXPECT_THAT(refusal<Receiver>(options_),
              AllOf(HasSubstr("keep: "), HasSubstr("is l4 here"), HasSubstr("l7 in")));
}

TEST_F(WatchTest, SessionsOfAnotherShapeAreWarnedOfByBothAndTheNewestStays) {
  Receiver one(options_);
  EXPECT_THAT(texts(one.context), IsEmpty());
  options_.delay = 15s;
  {
    Receiver two(options_);
    EXPECT_THAT(texts(two.context), ::testing::ElementsAre(AllOf(HasSubstr("'delay' is 15 s here"),
                                                                 HasSubstr("10 s in"))));
  }
  eventually([&] { return !texts(one.context).empty(); }, "the other notices");
  EXPECT_THAT(texts(one.context),
              ::testing::ElementsAre(AllOf(HasSubstr("'delay' is 10 s here"), HasSubstr("15 s"))));
  Receiver three(options_);
  EXPECT_THAT(texts(three.context), IsEmpty());
}

TEST_F(WatchTest, TicketsOfAnotherPrefixAreNotDroppedAsUnknown) {
  Receiver receiver(options_);
  receiver.give(packets());
  const auto tickets = receiver.take_tickets();
  ClaimOptions wrong = claim_options_;
  wrong.prefix = "milrace";
  Claimer claimer(wrong);
  EXPECT_THAT(texts(claimer.context),
              ::testing::ElementsAre(AllOf(HasSubstr("'milrace'"), HasSubstr("'millrace'"))));
  Batch<Ticket> batch(tickets);
  Output<Session> out(claimer.recorder);
  try {
    claimer.stage().process(batch, out);
    FAIL() << "no session can be of this prefix";
  } catch (const Transient& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("'milrace'"), HasSubstr("'millrace'")));
  }
  EXPECT_EQ(claimer.context.dropped_for("unknown"), 0U);
  EXPECT_EQ(claim(tickets).size(), 1U);
}

TEST_F(WatchTest, RedisThatIsEmptiedIsReportedAndTheReceiverGoesOn) {
  Receiver receiver(options_);
  Claimer claimer(claim_options_);
  receiver.give(packets());
  receiver.take_tickets();
  ask({"FLUSHALL"});
  for (auto* context : {&receiver.context, &claimer.context}) {
    eventually([&] { return !context->failing("lost").empty(); }, "reported");
    EXPECT_THAT(context->failing("lost"), HasSubstr("emptied"));
  }
  receiver.give(packets());  // known to be open, but it is not there any more
  const auto tickets = receiver.take_tickets();
  EXPECT_EQ(tickets.size(), 1U);
  EXPECT_EQ(claim(tickets).size(), 1U);
}

TEST_F(WatchTest, MemoryIsBoundedByAShareOfWhatRedisMayHold) {
  const std::string info(text_of(*ask({"INFO", "memory"})));
  const auto used = std::stoull(std::string(info_field(info, "used_memory")));
  ask({"CONFIG", "SET", "maxmemory", std::to_string(used + used / 10)});
  Receiver receiver(options_);
  Batch<Packet> batch(packets());
  Output<Ticket> out(receiver.recorder);
  try {
    receiver.stage().process(batch, out);
    FAIL() << "Redis is fuller than it may be";
  } catch (const Transient& error) {
    EXPECT_THAT(error.what(), HasSubstr("'max_memory'"));
  }
  EXPECT_EQ(batch.items.size(), 1U);
  ask({"CONFIG", "SET", "maxmemory", std::to_string(10 * used)});
  receiver.give(packets());
  EXPECT_EQ(receiver.take_tickets().size(), 1U);
}

TEST_F(WatchTest, ClocksThatDisagreeAreToldOnce) {
  const auto about_clocks = [](const testing::TestContext& context) {
    std::vector<std::string> texts;
    for (const auto& [level, text] : context.messages()) {
      if (text.find("clock") != std::string::npos) texts.push_back(text);
    }
    return texts;
  };
  const auto now = [] {
    return std::chrono::time_point_cast<Duration>(std::chrono::system_clock::now());
  };
  Receiver receiver(options_);  // its clock stands in the year 1970
  EXPECT_THAT(about_clocks(receiver.context), ::testing::ElementsAre(HasSubstr("behind")));
  std::atomic<bool> stop{false};
  std::jthread time([&] {
    while (!stop) receiver.context.manual_clock.set(now());
  });
  eventually([&] { return about_clocks(receiver.context).size() == 2; }, "they agree");
  EXPECT_THAT(about_clocks(receiver.context)[1], HasSubstr("agrees"));
  stop = true;
}

TEST_F(WatchTest, ServerThatIsAwayIsReportedWithoutAnyPacket) {
  Receiver receiver(options_);
  Claimer claimer(claim_options_);
  redis_->close();
  services->stop("redis");
  for (auto* context : {&receiver.context, &claimer.context}) {
    eventually([&] { return !context->failing("redis").empty(); }, "lost");
  }
  services->start("redis");
  for (auto* context : {&receiver.context, &claimer.context}) {
    eventually([&] { return context->failing("redis").empty(); }, "back");
    EXPECT_THAT(context->failing("lost"), IsEmpty());  // it has its append-only file
  }
}

TEST(WatchedServerTest, ClusterNodeIsRefusedBeforeTheFirstPacket) {
  testing::Services services({"redis"}, {"--option", "redis=--cluster-enabled yes"});
  if (!services.missing().empty()) GTEST_SKIP() << services.missing();
  SplitRedisOptions options;
  options.server = services.address("redis");
  try {
    Receiver receiver(options);
    FAIL() << "it takes nothing";
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.option(), "server");
    EXPECT_THAT(error.what(), HasSubstr("cluster mode"));
  }
  // It might be a proxy's answer: but this one serves no slot.
  options.buckets = 16;
  Receiver receiver(options);
  EXPECT_THAT(receiver.context.messages(),
              ::testing::Contains(::testing::Pair(LogLevel::warning, HasSubstr("CLUSTERDOWN"))));
}

/// With a snapshot that cannot be written Redis answers everything with MISCONF, as with a full
/// disk.
TEST(WatchedServerTest, FullDiskIsWaitedForAlsoAtTheLogIn) {
  testing::Services services({"redis"});
  if (!services.missing().empty()) GTEST_SKIP() << services.missing();
  SplitRedisOptions options;
  options.server = services.address("redis");
  RedisConnection admin(parse_redis_url(options.server), RedisTimeouts{});
  admin.open();
  const auto tell = [&](std::initializer_list<const char*> words) {
    RedisCommand command;
    command.begin(words.size());
    for (const char* word : words) command.add(std::string_view(word));
    return admin.call(command);
  };
  Receiver before(options);
  PacketMaker maker;
  const auto folder = tell({"CONFIG", "GET", "dir"});
  std::filesystem::create_directory(std::filesystem::path(text_of(*folder->element[1])) /
                                    "dump.rdb");
  tell({"CONFIG", "SET", "save", "3600 1"});
  tell({"SET", "change", "one"});
  tell({"BGSAVE"});
  eventually([&] { return text_of(*tell({"PING"})).starts_with("MISCONF"); }, "the disk is full");
  Receiver after(options);
  EXPECT_THAT(after.context.messages(),
              ::testing::Contains(::testing::Pair(LogLevel::warning, HasSubstr("MISCONF"))));
  for (Receiver* receiver : {&before, &after}) {
    Batch<Packet> batch({maker.make({}, 0s)});
    Output<Ticket> out(receiver->recorder);
    EXPECT_THROW(
        {
          receiver->stage().process(batch, out);
          receiver->stage().process(batch, out);
        },
        Transient);
  }
  tell({"CONFIG", "SET", "stop-writes-on-bgsave-error", "no"});
  after.give({maker.make({.src_port = 5}, 0s)});
  after.flush();
  EXPECT_EQ(after.take_tickets().size(), 1U);
  tell({"CONFIG", "SET", "save", ""});  // or it refuses to end
}

}  // namespace
}  // namespace millrace
