#include "server_stages.h"

#include <array>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "millrace/testing.h"

namespace millrace {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;

/// An Ethernet frame with an IPv4 TCP packet from 10.0.0.1:`port` to 10.0.0.2:80.
std::vector<std::byte> tcp(std::uint16_t port, std::uint8_t flags = 0x10, std::uint8_t fill = 'A') {
  constexpr std::uint8_t kPayload = 4;
  std::vector<std::uint8_t> f(14 + 20 + 20 + kPayload, fill);
  std::fill_n(f.begin(), 54, std::uint8_t{0});
  f[12] = 0x08;
  f[14] = 0x45;
  f[17] = 20 + 20 + kPayload;
  f[23] = 6;
  const std::array<std::uint8_t, 12> ends = {10,
                                             0,
                                             0,
                                             1,
                                             10,
                                             0,
                                             0,
                                             2,
                                             static_cast<std::uint8_t>(port >> 8U),
                                             static_cast<std::uint8_t>(port),
                                             0,
                                             80};
  std::ranges::copy(ends, f.begin() + 26);
  f[46] = 0x50;
  f[47] = flags;
  std::vector<std::byte> bytes(f.size());
  std::memcpy(bytes.data(), f.data(), f.size());
  return bytes;
}

/// What a call pushed.
template <class T>
struct Pushed {
  std::deque<Batch<T>> batches;

  [[nodiscard]] std::vector<T> items() const {
    std::vector<T> all;
    for (const Batch<T>& batch : batches) {
      all.insert(all.end(), batch.items.begin(), batch.items.end());
    }
    return all;
  }
};

/// The two stages with the store between them.
class ServerStagesTest : public ::testing::Test {
 protected:
  void start(SplitOptions options) {
    claim_context_.shared_objects = context_.shared_objects;
    claim_.open(claim_context_);  // sinks open first
    split_ = std::make_unique<SplitTickets>(options);
    split_->open(context_);
  }
  /// `numbers` go into `chunk` of `agent`, all of five-tuple `port`.
  Pushed<Ticket> give(std::uint16_t port, Duration at, int times, const std::string& agent = {},
                      const std::string& chunk = {}, std::uint32_t number = 0,
                      std::uint8_t flags = 0x10) {
    auto storage = std::make_shared<std::pair<std::vector<std::byte>, Origin>>(
        tcp(port, flags), Origin{agent, chunk});
    Batch<Packet> batch;
    for (int i = 0; i < times; ++i) {
      Packet packet;
      packet.time = Timestamp(at);
      packet.data = storage->first.data();
      packet.captured = packet.length = static_cast<std::uint32_t>(storage->first.size());
      packet.number = number++;
      packet.origin = &storage->second;
      batch.items.push_back(packet);
    }
    batch.storage = storage;
    testing::Recorder<Ticket> tickets;
    Output<Ticket> out(tickets);
    split_->process(batch, out);
    return {std::move(tickets.batches)};
  }
  Pushed<Session> claim(std::vector<Ticket> tickets, Receipt receipt = {}) {
    Batch<Ticket> batch(std::move(tickets));
    batch.receipt = std::move(receipt);
    testing::Recorder<Session> sessions;
    Output<Session> out(sessions);
    claim_.process(batch, out);
    batch.receipt.done();  // as the host does
    return {std::move(sessions.batches)};
  }
  static std::vector<std::string> reasons(const Pushed<Ticket>& tickets) {
    std::vector<std::string> list;
    for (const Ticket& ticket : tickets.items()) list.emplace_back(to_string(ticket.why));
    return list;
  }

  testing::TestContext context_;
  testing::TestContext claim_context_;
  std::unique_ptr<SplitTickets> split_;
  ClaimMemory claim_;
};

using testing::WatchedReceipt;

TEST_F(ServerStagesTest, SessionIsAnnouncedWhenItBeginsAndWhenItIsFull) {
  start({.packets = 3});
  const auto begun = give(1000, 1s, 1);
  EXPECT_THAT(reasons(begun), ElementsAre("timeout"));
  EXPECT_TRUE(reasons(give(1000, 1s, 1)).empty());
  const auto full = give(1000, 1s, 2);
  EXPECT_THAT(reasons(full), ElementsAre("full"));
  EXPECT_EQ(context_.dropped_for("after-due"), 1U);

  const auto sessions = claim(full.items());
  ASSERT_EQ(sessions.items().size(), 1U);
  EXPECT_EQ(sessions.items()[0].packets.size(), 3U);
  EXPECT_EQ(sessions.items()[0].info.due, Due::full);
  // The ticket of the beginning comes later and finds nothing to do.
  EXPECT_TRUE(claim(begun.items()).items().empty());
  EXPECT_EQ(claim_context_.dropped_for("already-done"), 1U);
}

TEST_F(ServerStagesTest, SessionThatStaysSmallIsClaimedByItsFirstTicket) {
  start({.packets = 24});
  const auto begun = give(1000, 1s, 5);
  const auto sessions = claim(begun.items());
  ASSERT_EQ(sessions.items().size(), 1U);
  EXPECT_EQ(sessions.items()[0].info.due, Due::timeout);
  EXPECT_EQ(sessions.items()[0].info.packets, 5U);
  give(1000, 2s, 1);
  EXPECT_EQ(context_.dropped_for("after-due"), 1U);
}

TEST_F(ServerStagesTest, ExactlySoManyPacketsGiveOneSession) {
  start({.packets = 24});
  const auto tickets = give(1000, 1s, 24);
  EXPECT_THAT(reasons(tickets), ElementsAre("timeout", "full"));
  const auto sessions = claim(tickets.items());
  ASSERT_EQ(sessions.items().size(), 1U);
  EXPECT_EQ(sessions.items()[0].packets.size(), 24U);
}

TEST_F(ServerStagesTest, ConnectionThatBeginsAgainIsAnotherSession) {
  start({.packets = 2});
  const auto first = give(1000, 1s, 2, {}, {}, 0, 0x02);
  const auto second = give(1000, 2s, 1, {}, {}, 0, 0x02);
  ASSERT_EQ(second.items().size(), 1U);
  EXPECT_EQ(second.items()[0].epoch, 1U);
  EXPECT_NE(second.items()[0].id, first.items()[0].id);
  EXPECT_EQ(claim(first.items()).items().size(), 1U);
  EXPECT_EQ(claim(second.items()).items().size(), 1U);
}

TEST_F(ServerStagesTest, AgentsThatSeeTheSameFiveTupleHaveSessionsOfTheirOwn) {
  start({.packets = 2});
  const auto a = give(1000, 1s, 1, "a");
  const auto b = give(1000, 1s, 1, "b");
  EXPECT_NE(a.items()[0].id, b.items()[0].id);
  EXPECT_EQ(b.items()[0].agent, "b");
  const auto full = give(1000, 1s, 1, "a");
  const auto sessions = claim(full.items());
  ASSERT_EQ(sessions.items().size(), 1U);
  EXPECT_EQ(sessions.items()[0].info.agent, "a");
  EXPECT_EQ(sessions.items()[0].info.id, a.items()[0].id);
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
  EXPECT_TRUE(again.items().empty());
  EXPECT_EQ(context_.dropped_for("repeated"), 2U);
  EXPECT_THAT(reasons(give(1000, 1s, 1, "a", "next")), ElementsAre("full"));
}

TEST_F(ServerStagesTest, ClaimWhoseReceiptFailsCanBeClaimedAgain) {
  start({.packets = 1});
  const auto tickets = give(1000, 1s, 1);
  WatchedReceipt watched;
  {
    auto sessions = claim(tickets.items(), watched.make());
    ASSERT_EQ(sessions.items().size(), 1U);
    EXPECT_EQ(watched.pending(), 1);
    // In work: nobody else gets it.
    EXPECT_TRUE(claim(tickets.items()).items().empty());
  }
  EXPECT_EQ(watched.failed(), 1);
  auto sessions = claim(tickets.items(), watched.make());
  ASSERT_EQ(sessions.items().size(), 1U);
  sessions.batches[0].receipt.done();
  EXPECT_EQ(watched.done(), 1);
  EXPECT_TRUE(claim(tickets.items()).items().empty());
}

TEST_F(ServerStagesTest, WaitsWhileTooMuchIsNotClaimed) {
  start({.packets = 1, .max_bytes = 1_MiB});
  std::vector<Ticket> tickets;
  const auto fill = [&] {
    for (std::uint16_t port = 1; port < 100; ++port) {
      for (const Ticket& ticket : give(port, 1s, 1).items()) tickets.push_back(ticket);
    }
  };
  EXPECT_THROW(fill(), Transient);
  auto sessions = claim(tickets);
  for (auto& batch : sessions.batches) batch.receipt.done();
  EXPECT_NO_THROW(give(1000, 1s, 1));
}

TEST_F(ServerStagesTest, BeyondSoManyAgentsTheSilentOneGivesOnItsSessions) {
  start({.packets = 24, .max_agents = 2});
  give(1000, 1s, 3, "a");
  give(1000, 1s, 3, "b");
  give(1000, 1s, 1, "a");
  const auto tickets = give(1000, 1s, 1, "c");
  EXPECT_THAT(reasons(tickets), ElementsAre("end", "timeout"));
  EXPECT_EQ(tickets.items()[0].agent, "b");
  const auto sessions = claim(tickets.items());
  ASSERT_EQ(sessions.items().size(), 2U);
  EXPECT_EQ(sessions.items()[0].packets.size(), 3U);
}

}  // namespace
}  // namespace millrace
