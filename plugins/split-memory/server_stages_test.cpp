#include "server_stages.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "millrace/testing.h"

namespace millrace {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;

/// The two stages with the store between them.
class ServerStagesTest : public ::testing::Test {
 protected:
  ServerStagesTest() { context_.shared_objects = claim_context_.shared_objects; }

  void start(SplitOptions options) { split_.emplace(context_, options); }
  /// `numbers` go into `chunk` of `agent`, all of five-tuple `port`.
  std::vector<Ticket> give(std::uint16_t port, Duration at, int times,
                           const std::string& agent = {}, const std::string& chunk = {},
                           std::uint32_t number = 0, std::uint8_t flags = 0x10) {
    testing::Packets packets;
    for (int i = 0; i < times; ++i) {
      packets.add({.src_port = port, .payload = 4, .tcp = true, .flags = flags}, at);
    }
    Batch<Packet> batch = packets.take();
    batch.watermark = kNoTime;  // the agents have clocks of their own
    const auto origin = std::make_shared<Origin>(Origin{agent, chunk});
    for (Packet& packet : batch.items) {
      packet.number = number++;
      packet.origin = origin.get();
    }
    batch.storage =
        std::make_shared<std::pair<std::shared_ptr<const void>, std::shared_ptr<Origin>>>(
            batch.storage, origin);
    return split_->process(std::move(batch));
  }
  std::vector<Session> claim(std::vector<Ticket> tickets) {
    return claim_.process(std::move(tickets));
  }
  static std::vector<std::string> reasons(const std::vector<Ticket>& tickets) {
    std::vector<std::string> list;
    for (const Ticket& ticket : tickets) list.emplace_back(to_string(ticket.why));
    return list;
  }

  testing::TestContext context_;
  testing::TestContext claim_context_;
  testing::Driven<ClaimMemory> claim_{claim_context_};  // opened first, as sinks are
  std::optional<testing::Driven<SplitTickets>> split_;
};

TEST_F(ServerStagesTest, SessionIsAnnouncedWhenItBeginsAndWhenItIsFull) {
  start({.packets = 3});
  const auto begun = give(1000, 1s, 1);
  EXPECT_THAT(reasons(begun), ElementsAre("timeout"));
  EXPECT_TRUE(reasons(give(1000, 1s, 1)).empty());
  const auto full = give(1000, 1s, 2);
  EXPECT_THAT(reasons(full), ElementsAre("full"));
  EXPECT_EQ(context_.dropped_for("after-due"), 1U);

  const auto sessions = claim(full);
  ASSERT_EQ(sessions.size(), 1U);
  EXPECT_EQ(sessions[0].packets.size(), 3U);
  EXPECT_EQ(sessions[0].info.due, Due::full);
  // The ticket of the beginning comes later and finds nothing to do.
  EXPECT_TRUE(claim(begun).empty());
  EXPECT_EQ(claim_context_.dropped_for("already-done"), 1U);
}

TEST_F(ServerStagesTest, SessionThatStaysSmallIsClaimedByItsFirstTicket) {
  start({.packets = 24});
  const auto begun = give(1000, 1s, 5);
  const auto sessions = claim(begun);
  ASSERT_EQ(sessions.size(), 1U);
  EXPECT_EQ(sessions[0].info.due, Due::timeout);
  EXPECT_EQ(sessions[0].info.packets, 5U);
  give(1000, 2s, 1);
  EXPECT_EQ(context_.dropped_for("after-due"), 1U);
}

TEST_F(ServerStagesTest, ExactlySoManyPacketsGiveOneSession) {
  start({.packets = 24});
  const auto tickets = give(1000, 1s, 24);
  EXPECT_THAT(reasons(tickets), ElementsAre("timeout", "full"));
  const auto sessions = claim(tickets);
  ASSERT_EQ(sessions.size(), 1U);
  EXPECT_EQ(sessions[0].packets.size(), 24U);
}

TEST_F(ServerStagesTest, ConnectionThatBeginsAgainIsAnotherSession) {
  start({.packets = 2});
  const auto first = give(1000, 1s, 2, {}, {}, 0, 0x02);
  const auto second = give(1000, 2s, 1, {}, {}, 0, 0x02);
  ASSERT_EQ(second.size(), 1U);
  EXPECT_EQ(second[0].epoch, 1U);
  EXPECT_NE(second[0].id, first[0].id);
  EXPECT_EQ(claim(first).size(), 1U);
  EXPECT_EQ(claim(second).size(), 1U);
}

TEST_F(ServerStagesTest, AgentsThatSeeTheSameFiveTupleHaveSessionsOfTheirOwn) {
  start({.packets = 2});
  const auto a = give(1000, 1s, 1, "a");
  const auto b = give(1000, 1s, 1, "b");
  EXPECT_NE(a[0].id, b[0].id);
  EXPECT_EQ(b[0].agent, "b");
  const auto full = give(1000, 1s, 1, "a");
  const auto sessions = claim(full);
  ASSERT_EQ(sessions.size(), 1U);
  EXPECT_EQ(sessions[0].info.agent, "a");
  EXPECT_EQ(sessions[0].info.id, a[0].id);
}

// An old capture of one agent must not end the sessions of another.
TEST_F(ServerStagesTest, AgentsHaveClocksOfTheirOwn) {
  start({.packets = 3, .delay = 10s});
  give(1000, 1h, 1, "new");
  give(1000, 1s, 1, "old");
  give(1000, 1h + 9s, 1, "new");
  EXPECT_THAT(reasons(give(1000, 11s, 1, "old")), ElementsAre());
  EXPECT_EQ(context_.dropped_for("after-due"), 1U);
  EXPECT_THAT(reasons(give(1000, 1h + 9s, 1, "new")), ElementsAre("full"));
}

TEST_F(ServerStagesTest, ChunkThatComesAgainAddsOnlyWhatIsNew) {
  start({.packets = 4});
  give(1000, 1s, 2, "a", "chunk");
  const auto again = give(1000, 1s, 3, "a", "chunk");
  EXPECT_TRUE(again.empty());
  EXPECT_EQ(context_.dropped_for("repeated"), 2U);
  EXPECT_THAT(reasons(give(1000, 1s, 1, "a", "next")), ElementsAre("full"));
}

TEST_F(ServerStagesTest, ClaimWhoseReceiptFailsCanBeClaimedAgain) {
  start({.packets = 1});
  const auto tickets = give(1000, 1s, 1);
  ASSERT_EQ(claim(tickets).size(), 1U);
  EXPECT_EQ(claim_.receipts.pending(), 1);
  // In work: nobody else gets it.
  EXPECT_TRUE(claim(tickets).empty());
  claim_.out.settle(Outcome::failed);
  EXPECT_EQ(claim_.receipts.failed(), 1);
  ASSERT_EQ(claim(tickets).size(), 1U);
  claim_.out.settle();
  EXPECT_EQ(claim_.receipts.done(), 2);  // and the one that found nothing to do
  EXPECT_TRUE(claim(tickets).empty());
}

TEST_F(ServerStagesTest, WaitsWhileTooMuchIsNotClaimed) {
  start({.packets = 1, .max_bytes = 1_MiB});
  std::vector<Ticket> tickets;
  const auto fill = [&] {
    for (std::uint16_t port = 1; port < 100; ++port) {
      for (const Ticket& ticket : give(port, 1s, 1)) tickets.push_back(ticket);
    }
  };
  EXPECT_THROW(fill(), Transient);
  claim(tickets);
  claim_.out.settle();
  EXPECT_NO_THROW(give(1000, 1s, 1));
}

TEST_F(ServerStagesTest, BeyondSoManyAgentsTheSilentOneGivesOnItsSessions) {
  start({.packets = 24, .max_agents = 2});
  give(1000, 1s, 3, "a");
  give(1000, 1s, 3, "b");
  give(1000, 1s, 1, "a");
  const auto tickets = give(1000, 1s, 1, "c");
  EXPECT_THAT(reasons(tickets), ElementsAre("end", "timeout"));
  EXPECT_EQ(tickets[0].agent, "b");
  const auto sessions = claim(tickets);
  ASSERT_EQ(sessions.size(), 2U);
  EXPECT_EQ(sessions[0].packets.size(), 3U);
}

}  // namespace
}  // namespace millrace
