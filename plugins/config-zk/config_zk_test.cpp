#include "config_zk.h"

#include "provider_fixture.h"
#include "relay.h"

namespace millrace {
namespace {

using ::testing::AllOf;

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

TEST_F(ConfigZkTest, TellsTheValuesAndEveryChangeInUnderASecond) {
  Other other(server());
  const std::uint64_t first = other.put(options_.node, "interface = 'lo'\n[server]\nport = 1\n");
  Agent agent(options_, context_);
  EXPECT_EQ(agent.told.wait_for(1), "interface=lo server.port=1");
  EXPECT_EQ(agent.told.generation(1), first);
  for (std::size_t i = 2; i < 22; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    const std::uint64_t written = other.put(options_.node, "i = " + std::to_string(i));
    ASSERT_EQ(agent.told.wait_for(i), "i=" + std::to_string(i));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 1s);
    EXPECT_EQ(agent.told.generation(i), written);
  }
}

TEST_F(ConfigZkTest, NewestOfManyChangesIsTold) {
  Other other(server());
  Agent agent(options_, context_);
  for (int i = 1; i <= 300; ++i) other.put(options_.node, "i = " + std::to_string(i));
  EXPECT_TRUE(eventually([&] {
    const std::size_t count = agent.told.count();
    return count > 0 && agent.told.wait_for(count) == "i=300";
  }));
}

TEST_F(ConfigZkTest, ReadsJson) {
  Other other(server());
  options_.format = ValueFormat::json;
  other.put(options_.node, R"({"filter": "tcp", "server": {"port": 1}})");
  Agent agent(options_, context_);
  EXPECT_EQ(agent.told.wait_for(1), "filter=tcp server.port=1");
  other.put(options_.node, "{\"filter\":\n oh}");
  EXPECT_THAT(agent.told.wait_for(2), StartsWith("! " + options_.node + ":2:2: "));
}

TEST_F(ConfigZkTest, WaitsForANodeThatIsNotThere) {
  Agent agent(options_, context_);
  ASSERT_TRUE(says(context_, "'" + options_.node + "' does not exist yet; waiting for it"));
  Other other(server());
  other.put(options_.node, "a = 1");
  EXPECT_EQ(agent.told.wait_for(1), "a=1");
}

TEST_F(ConfigZkTest, NodeThatIsDeletedLeavesItsValuesInUse) {
  Other other(server());
  const std::uint64_t first = other.put(options_.node, "a = 1");
  Agent agent(options_, context_);
  ASSERT_EQ(agent.told.wait_for(1), "a=1");
  ConfigStatus running;
  running.applied = running.seen = first;
  agent.report(running);
  other.remove(options_.node);
  ASSERT_TRUE(
      says(context_, "was deleted; the pipeline goes on with generation " + std::to_string(first)));
  other.put(options_.node, "a = 2");
  EXPECT_EQ(agent.told.wait_for(2), "a=2");
}

TEST_F(ConfigZkTest, UnreadableValuesHaveAPlaceAndAGeneration) {
  Other other(server());
  const std::uint64_t first = other.put(options_.node, "a = 1\nb = = 2\n");
  Agent agent(options_, context_);
  EXPECT_THAT(agent.told.wait_for(1), StartsWith("! " + options_.node + ":2:5: "));
  EXPECT_EQ(agent.told.generation(1), first);
  other.put(options_.node, "a = [1]");
  EXPECT_THAT(agent.told.wait_for(2), HasSubstr("'a' is a list"));
  other.put(options_.node, "");
  EXPECT_EQ(agent.told.wait_for(3), "");
}

TEST_F(ConfigZkTest, PathsAreBelowTheFolderOfTheServerList) {
  Other other(server());
  other.put(folder_ + "/root/agents/a", "a = 1");
  options_.server = server() + folder_ + "/root";
  options_.node = "/agents/a";
  options_.status = "/status";
  Agent agent(options_, context_);
  EXPECT_EQ(agent.told.wait_for(1), "a=1");
  EXPECT_TRUE(eventually([&] { return other.stat(folder_ + "/root/status/a").has_value(); }));
  other.put(folder_ + "/root/agents/a", "a = 2");
  EXPECT_EQ(agent.told.wait_for(2), "a=2");
}

TEST_F(ConfigZkTest, WaitsForAServerThatIsNotUp) {
  testing::Relay relay(services()->port("zookeeper"));
  relay.cut();
  options_.server = relay.address();
  Agent agent(options_, context_);
  ASSERT_TRUE(says(context_, "no server of " + relay.address() + " answers; waiting for one"));
  Other(server()).put(options_.node, "a = 1");
  relay.mend();
  EXPECT_EQ(agent.told.wait_for(1), "a=1");
  EXPECT_TRUE(says(context_, "connected with " + relay.address()));
}

TEST_F(ConfigZkTest, UnknownHostIsWaitedForAndSaid) {
  options_.server = "no-such-host.invalid:2181";
  Agent agent(options_, context_);
  EXPECT_TRUE(
      says(context_, "no session of no-such-host.invalid:2181: no address of a host is known"));
  // Once, however often it is tried.
  std::this_thread::sleep_for(3s);
  EXPECT_THAT(context_.messages(), SizeIs(1)) << context_.messages().back().second;
  EXPECT_EQ(agent.failure(), "");
}

TEST_F(ConfigZkTest, AddressWhereNobodyListensIsCalledThat) {
  // Whether the library finds out before it has got 'auth' or after it is a race.
  ZkOptions nobody{parse_zk_servers("127.0.0.1:1"), 5s, "agents:secret", false};
  for (int i = 0; i < 50; ++i) {
    ZkClient client(nobody);
    try {
      client.open();
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "no server of 127.0.0.1:1 answers");
    }
  }
  options_.server = "127.0.0.1:1";
  options_.auth = "agents:secret";
  Agent agent(options_, context_);
  EXPECT_TRUE(says(context_, "no server of 127.0.0.1:1 answers"));
}

TEST_F(ConfigZkTest, ExpiredSessionIsReplaced) {
  Other other(server());
  other.put(options_.node, "a = 1");
  testing::Relay relay(services()->port("zookeeper"));
  options_.server = relay.address();
  Agent agent(options_, context_);
  ASSERT_EQ(agent.told.wait_for(1), "a=1");
  ASSERT_TRUE(eventually([&] { return other.stat(status_path()).has_value(); }));
  const std::int64_t before = other.stat(status_path())->ephemeralOwner;
  relay.cut();
  // The server ends the session, and its ephemeral node goes.
  ASSERT_TRUE(eventually([&] { return !other.stat(status_path()).has_value(); }));
  other.put(options_.node, "a = 2");
  relay.mend();
  EXPECT_EQ(agent.told.wait_for(2), "a=2");
  EXPECT_TRUE(says(context_, "the session has expired; beginning a new one"));
  ASSERT_TRUE(eventually([&] { return other.stat(status_path()).has_value(); }));
  EXPECT_NE(other.stat(status_path())->ephemeralOwner, before);
  other.put(options_.node, "a = 3");
  EXPECT_EQ(agent.told.wait_for(3), "a=3");
}

TEST_F(ConfigZkTest, FrozenServerDoesNotHoldTheEnd) {
  Other(server()).put(options_.node, "a = 1");
  Agent agent(options_, context_);
  ASSERT_EQ(agent.told.wait_for(1), "a=1");
  services()->pause("zookeeper");
  ConfigStatus status;
  status.applied = 1;
  agent.report(status);
  const auto begin = std::chrono::steady_clock::now();
  agent.stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 4s);
  services()->resume("zookeeper");
}

TEST_F(ConfigZkTest, ServerFrozenBeyondTheSessionTimeout) {
  Other other(server());
  other.put(options_.node, "a = 1");
  Agent agent(options_, context_);
  ASSERT_EQ(agent.told.wait_for(1), "a=1");
  ConfigStatus running;
  running.applied = running.seen = 1;
  agent.report(running);
  services()->pause("zookeeper");
  ASSERT_TRUE(says(context_, "the pipeline goes on with generation"));
  services()->resume("zookeeper");
  other.put(options_.node, "a = 2");
  EXPECT_EQ(agent.told.wait_for(2), "a=2");
  EXPECT_TRUE(eventually([&] { return other.stat(status_path()).has_value(); }));
  EXPECT_EQ(agent.failure(), "");
}

TEST_F(ConfigZkTest, NodeThatOthersMayNotRead) {
  Other owner(server(), "agents:secret");
  owner.put(options_.node, "a = 1");
  owner.protect(options_.node, ZOO_CREATOR_ALL_ACL);
  {
    Agent agent(options_, context_);
    EXPECT_TRUE(eventually([&] { return !agent.failure().empty(); }));
    EXPECT_EQ(agent.failure(),
              "the node '" + options_.node + "' may not be read without 'auth': not authenticated");
  }
  options_.auth = "agents:wrong";
  {
    Agent agent(options_, context_);
    EXPECT_TRUE(eventually([&] { return !agent.failure().empty(); }));
    EXPECT_THAT(agent.failure(), HasSubstr("with this 'auth'"));
    EXPECT_THAT(agent.failure(), Not(HasSubstr("wrong")));
  }
  options_.auth = "agents:secret";
  Agent agent(options_, context_);
  EXPECT_EQ(agent.told.wait_for(1), "a=1");
  // What happens later must not end a pipeline that runs.
  owner.put(options_.node, "a = 2");
  EXPECT_EQ(agent.told.wait_for(2), "a=2");
  Other thief(server(), "other:x");
  owner.protect(options_.node, ZOO_OPEN_ACL_UNSAFE);
  thief.protect(options_.node, ZOO_CREATOR_ALL_ACL);
  thief.put(options_.node, "a = 3");
  EXPECT_TRUE(says(context_, "may not be read any more"));
  thief.protect(options_.node, ZOO_OPEN_ACL_UNSAFE);
  EXPECT_EQ(agent.told.wait_for(3), "a=3");
  EXPECT_EQ(agent.failure(), "");
}

TEST_F(ConfigZkTest, OptionsThatCannotBeRight) {
  const auto refusal = [this](auto change) {
    ConfigZkOptions options = options_;
    change(options);
    ConfigZk provider(options);
    try {
      provider.open(context_);
    } catch (const ConfigError& error) {
      return error.option() + ": " + error.what();
    }
    return std::string("accepted");
  };
  using O = ConfigZkOptions;
  EXPECT_EQ(refusal([](O& /*o*/) {}), "accepted");
  EXPECT_THAT(refusal([](O& o) { o.server = "localhost"; }),
              AllOf(StartsWith("server: "), HasSubstr("is no host:port")));
  EXPECT_THAT(refusal([](O& o) { o.node = "agents/a"; }),
              AllOf(StartsWith("node: "), HasSubstr("does not begin with '/'")));
  EXPECT_THAT(refusal([](O& o) { o.status = "/a//b"; }), StartsWith("status: "));
  EXPECT_THAT(refusal([](O& o) { o.agent = "a/b"; }), StartsWith("agent: "));
  EXPECT_EQ(refusal([](O& o) { o.auth = "secret"; }), "auth: expected user:password");
  EXPECT_THAT(refusal([](O& o) { o.readable = true; }), StartsWith("readable: "));
}

}  // namespace
}  // namespace millrace
