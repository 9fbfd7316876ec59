#include <unistd.h>

#include "provider_fixture.h"
#include "relay.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

using StatusTest = ConfigZkTest;

TEST_F(StatusTest, AgentIsRegisteredAndGoesAtOnce) {
  Other other(server());
  options_.session_timeout = 10s;
  Agent agent(options_, context_);
  ASSERT_TRUE(eventually([&] { return other.stat(status_path()).has_value(); }));
  EXPECT_NE(other.stat(status_path())->ephemeralOwner, 0);
  const nlohmann::json status = other.json(status_path());
  EXPECT_EQ(status["agent"], "a");
  EXPECT_EQ(status["host"], host_name());
  EXPECT_EQ(status["version"], MILLRACE_VERSION);
  EXPECT_EQ(status["supervisor"], ::getpid());
  EXPECT_EQ(status["pid"], 0);
  EXPECT_EQ(status["applied"], 0);
  EXPECT_EQ(status["counters"], nullptr);
  EXPECT_EQ(status["since"], "1970-01-02T00:00:00.000Z");
  agent.stop();
  EXPECT_FALSE(other.stat(status_path()).has_value());
}

TEST_F(StatusTest, ChangesAreWrittenAtOnceAndCountersNowAndThen) {
  Other other(server());
  options_.report = 1h;
  Agent agent(options_, context_);
  ASSERT_TRUE(eventually([&] { return other.stat(status_path()).has_value(); }));
  ConfigStatus status;
  status.applied = 7;
  status.seen = 9;
  status.ok = false;
  status.error = "agent.toml:1:2: \"no\"\nä";
  status.pid = 4711;
  status.restarts = 3;
  status.counters = R"({"capture":{"out":5}})";
  context_.manual_clock.advance(90s);
  agent.report(status);
  ASSERT_TRUE(eventually([&] { return other.json(status_path())["applied"] == 7; }));
  const nlohmann::json written = other.json(status_path());
  EXPECT_EQ(written["seen"], 9);
  EXPECT_EQ(written["ok"], false);
  EXPECT_EQ(written["error"], status.error);
  EXPECT_EQ(written["pid"], 4711);
  EXPECT_EQ(written["restarts"], 3);
  EXPECT_EQ(written["counters"]["capture"]["out"], 5);
  EXPECT_EQ(written["since"], "1970-01-02T00:00:00.000Z");
  EXPECT_EQ(written["updated"], "1970-01-02T00:01:30.000Z");
  // Counters alone wait; with the next change they are there.
  const int version = other.stat(status_path())->version;
  for (int i = 0; i < 50; ++i) {
    status.counters = R"({"capture":{"out":)" + std::to_string(100 + i) + "}}";
    agent.report(status);
  }
  status.ok = true;
  agent.report(status);
  ASSERT_TRUE(eventually([&] { return other.json(status_path())["ok"] == true; }));
  EXPECT_EQ(other.json(status_path())["counters"]["capture"]["out"], 149);
  EXPECT_EQ(other.stat(status_path())->version, version + 1);
}

TEST_F(StatusTest, CountersAreWrittenAtTheirRate) {
  Other other(server());
  options_.report = 300ms;
  Agent agent(options_, context_);
  ASSERT_TRUE(eventually([&] { return other.stat(status_path()).has_value(); }));
  const auto begin = std::chrono::steady_clock::now();
  ConfigStatus status;
  int reports = 0;
  while (std::chrono::steady_clock::now() < begin + 1500ms) {
    status.counters = "{\"n\":" + std::to_string(++reports) + "}";
    agent.report(status);
    std::this_thread::sleep_for(10ms);
  }
  ASSERT_TRUE(eventually([&] { return other.json(status_path())["counters"]["n"] == reports; }));
  const auto periods = (std::chrono::steady_clock::now() - begin) / 300ms;
  EXPECT_GE(other.stat(status_path())->version, 3);
  EXPECT_LE(other.stat(status_path())->version, periods + 1);
}

TEST_F(StatusTest, NewestStatusIsWrittenWhenTheConnectionIsBack) {
  Other other(server());
  testing::Relay relay(services()->port("zookeeper"));
  options_.server = relay.address();
  options_.session_timeout = 10s;
  Agent agent(options_, context_);
  ASSERT_TRUE(eventually([&] { return other.stat(status_path()).has_value(); }));
  relay.cut();
  ConfigStatus status;
  for (std::uint64_t i = 1; i <= 100; ++i) {
    status.applied = i;
    const auto begin = std::chrono::steady_clock::now();
    agent.report(status);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 1s);
  }
  relay.mend();
  EXPECT_TRUE(eventually([&] { return other.json(status_path())["applied"] == 100; }));
}

TEST_F(StatusTest, LongErrorIsCutBetweenCharactersAndLargeCountersAreLeftOut) {
  Other other(server());
  Agent agent(options_, context_);
  ConfigStatus status;
  status.applied = 1;
  for (int i = 0; i < 1000000; ++i) status.error += "ä\x01";
  status.counters = "{\"x\":\"" + std::string(1U << 20U, 'x') + "\"}";
  agent.report(status);
  ASSERT_TRUE(eventually([&] { return other.json(status_path())["applied"] == 1; }));
  const nlohmann::json written = other.json(status_path());
  // 65536 bytes would end in the middle of a character.
  const auto error = written["error"].get<std::string>();
  const std::string end = "\x01... (2934465 bytes more)";
  EXPECT_EQ(error.substr(error.size() - end.size()), end);
  EXPECT_EQ(written["counters"], nullptr);
}

TEST_F(StatusTest, NodeThatIsDeletedIsMadeAgain) {
  Other other(server());
  Agent agent(options_, context_);
  ASSERT_TRUE(eventually([&] { return other.stat(status_path()).has_value(); }));
  other.remove(status_path());
  ConfigStatus status;
  status.applied = 1;
  agent.report(status);
  EXPECT_TRUE(eventually([&] { return other.json(status_path())["applied"] == 1; }));
  EXPECT_NE(other.stat(status_path())->ephemeralOwner, 0);
}

TEST_F(StatusTest, EarlierSessionOfTheSameAgentIsWaitedFor) {
  Other other(server());
  testing::Relay relay(services()->port("zookeeper"));
  ConfigZkOptions first = options_;
  first.server = relay.address();
  testing::TestContext ignored;
  Agent earlier(first, ignored);
  ASSERT_TRUE(eventually([&] { return other.stat(status_path()).has_value(); }));
  const std::int64_t before = other.stat(status_path())->ephemeralOwner;
  // As if it had been killed: the session lasts until its time-out.
  relay.cut();
  Agent later(options_, context_);
  EXPECT_TRUE(says(context_, "'" + status_path() + "' is there already (host \"" + host_name()));
  ASSERT_TRUE(eventually([&] {
    const auto stat = other.stat(status_path());
    return stat && stat->ephemeralOwner != before;
  }));
  EXPECT_TRUE(says(context_, "registered as '" + status_path() + "'"));
}

TEST_F(StatusTest, TwoAgentsOfOneNameDoNotFight) {
  Other other(server());
  options_.session_timeout = 1s;
  other.put(options_.node, "a = 1");
  testing::TestContext ignored;
  auto first = std::make_unique<Agent>(options_, ignored);
  ASSERT_TRUE(eventually([&] { return other.stat(status_path()).has_value(); }));
  const auto before = *other.stat(status_path());
  Agent second(options_, context_);
  ConfigStatus status;
  status.applied = 2;
  second.report(status);
  EXPECT_TRUE(says(context_, "belongs to another agent of the same name (host"));
  EXPECT_EQ(second.told.wait_for(1), "a=1");
  EXPECT_EQ(other.stat(status_path())->ephemeralOwner, before.ephemeralOwner);
  EXPECT_EQ(other.json(status_path())["applied"], 0);
  first.reset();
  EXPECT_TRUE(eventually([&] { return other.json(status_path())["applied"] == 2; }));
}

TEST_F(StatusTest, NodeThatSomebodyMadeByHandIsLeftAlone) {
  Other other(server());
  options_.session_timeout = 1s;
  other.put(status_path(), "mine");
  Agent agent(options_, context_);
  EXPECT_TRUE(says(context_, "it is no ephemeral node; delete it"));
  EXPECT_EQ(other.get(status_path()), "mine");
  other.remove(status_path());
  EXPECT_TRUE(eventually([&] { return other.json(status_path())["agent"] == "a"; }));
}

TEST_F(StatusTest, WithoutAStatusFolderNothingIsWritten) {
  Other other(server());
  other.put(options_.node, "a = 1");
  options_.status.clear();
  Agent agent(options_, context_);
  ConfigStatus status;
  status.applied = 1;
  agent.report(status);
  ASSERT_EQ(agent.told.wait_for(1), "a=1");
  other.put(options_.node, "a = 2");
  ASSERT_EQ(agent.told.wait_for(2), "a=2");
  EXPECT_THAT(other.children(folder_), ElementsAre("agents"));
}

TEST_F(StatusTest, NodesOfAnAgentWithAuthBelongToItsUser) {
  options_.auth = "agents:secret";
  Agent agent(options_, context_);
  Other owner(server(), "agents:secret");
  Other stranger(server());
  ASSERT_TRUE(eventually([&] { return owner.stat(status_path()).has_value(); }));
  EXPECT_EQ(stranger.get(status_path()), "<not authenticated>");
  EXPECT_EQ(stranger.set(status_path(), "x"), ZNOAUTH);
  EXPECT_EQ(stranger.create(options_.status + "/b", "x"), ZNOAUTH);
  EXPECT_EQ(owner.json(status_path())["agent"], "a");
  EXPECT_THAT(owner.acl(status_path()), SizeIs(1));

  testing::TestContext ignored;
  ConfigZkOptions open = options_;
  open.agent = "b";
  open.readable = true;
  Agent readable(open, ignored);
  ASSERT_TRUE(eventually([&] { return owner.stat(options_.status + "/b").has_value(); }));
  EXPECT_EQ(stranger.json(options_.status + "/b")["agent"], "b");
  EXPECT_EQ(stranger.set(options_.status + "/b", "x"), ZNOAUTH);
}

TEST_F(StatusTest, FolderThatIsClosedToTheAgentIsSaid) {
  Other owner(server(), "admin:x");
  owner.put(options_.status, "");
  owner.protect(options_.status, ZOO_CREATOR_ALL_ACL);
  owner.put(options_.node, "a = 1");
  Agent agent(options_, context_);
  EXPECT_TRUE(
      says(context_, "the status cannot be written to '" + status_path() + "': not authenticated"));
  EXPECT_EQ(agent.told.wait_for(1), "a=1");
  owner.protect(options_.status, ZOO_OPEN_ACL_UNSAFE);
  EXPECT_TRUE(eventually([&] { return owner.stat(status_path()).has_value(); }));
}

}  // namespace
}  // namespace millrace
