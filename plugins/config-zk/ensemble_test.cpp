#include <set>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "provider_fixture.h"

namespace millrace {
namespace {

const std::array<std::string, 3> kMembers{"zookeeper1", "zookeeper2", "zookeeper3"};

class EnsembleTest : public ConfigZkTest {
 protected:
  static void SetUpTestSuite() { start({kMembers.begin(), kMembers.end()}); }
  void SetUp() override {
    ZkTest::SetUp();
    if (IsSkipped()) return;
    for (const std::string& member : kMembers) {
      servers_ += (servers_.empty() ? "" : ",") + services()->address(member);
    }
    options_ = options_for(servers_);
  }

  /// A server's answer to a four-letter word; empty if it does not answer.
  static std::string ask(const std::string& member, const std::string& word) {
    const int connection = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(services()->port(member));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    std::string answer;
    if (::connect(connection, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
        ::send(connection, word.data(), word.size(), MSG_NOSIGNAL) > 0) {
      std::array<char, 4096> piece{};
      for (ssize_t size = 0; (size = ::read(connection, piece.data(), piece.size())) > 0;) {
        answer.append(piece.data(), static_cast<std::size_t>(size));
      }
    }
    ::close(connection);
    return answer;
  }
  static std::string leader() {
    std::string found;
    eventually([&] {
      for (const std::string& member : kMembers) {
        if (ask(member, "srvr").find("Mode: leader") != std::string::npos) found = member;
      }
      return !found.empty();
    });
    return found;
  }

  std::string servers_;
};

TEST_F(EnsembleTest, LeaderIsKilled) {
  Other other(servers_);
  other.put(options_.node, "a = 1");
  Agent agent(options_, context_);
  ASSERT_EQ(agent.told.wait_for(1), "a=1");
  ASSERT_TRUE(eventually([&] { return other.stat(status_path()).has_value(); }));
  const std::string killed = leader();
  ASSERT_FALSE(killed.empty());
  services()->kill(killed);
  other.put(options_.node, "a = 2");
  EXPECT_EQ(agent.told.wait_for(2), "a=2");
  ConfigStatus status;
  status.applied = 2;
  agent.report(status);
  EXPECT_TRUE(eventually([&] { return other.json(status_path())["applied"] == 2; }));
  services()->start(killed);
  EXPECT_EQ(agent.failure(), "");
}

TEST_F(EnsembleTest, AllThreeAreRestarted) {
  Other other(servers_);
  other.put(options_.node, "a = 1");
  Agent agent(options_, context_);
  ASSERT_EQ(agent.told.wait_for(1), "a=1");
  ConfigStatus running;
  running.applied = running.seen = 1;
  agent.report(running);
  services()->command("stop", {kMembers.begin(), kMembers.end()});
  ASSERT_TRUE(says(context_, "the pipeline goes on with generation"));
  services()->command("start", {kMembers.begin(), kMembers.end()});
  other.put(options_.node, "a = 2");
  EXPECT_EQ(agent.told.wait_for(2), "a=2");
  EXPECT_EQ(agent.told.count(), 2U);
  EXPECT_TRUE(eventually([&] { return other.stat(status_path()).has_value(); }));
  other.put(options_.node, "a = 3");
  EXPECT_EQ(agent.told.wait_for(3), "a=3");
}

}  // namespace
}  // namespace millrace
