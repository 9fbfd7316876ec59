#include "split_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "millrace/testing.h"

namespace millrace {
namespace {

using testing::Driven;
using ::testing::ElementsAre;
using namespace std::chrono_literals;

/// `times` packets of one session, which `port` tells from others.
Batch<Packet> packets(std::uint16_t port, Duration at, int times = 1) {
  testing::Packets made;
  for (int i = 0; i < times; ++i) made.add({.src_port = port, .dst_port = 53}, at);
  return made.take();
}

TEST(SplitMemoryTest, FullSessionIsGivenOnAtOnceAndTheRestIsCounted) {
  Driven<SplitMemory> stage(SplitOptions{.packets = 3});
  const auto sessions = stage.process(packets(1000, 1s, 5));
  ASSERT_EQ(sessions.size(), 1U);
  EXPECT_EQ(sessions[0].info.due, Due::full);
  EXPECT_EQ(sessions[0].info.packets, 3U);
  EXPECT_EQ(sessions[0].packets.size(), 3U);
  EXPECT_EQ(stage.context.dropped_for("after-due"), 2U);
  EXPECT_EQ(stage.context.handled_items(), 3U);
}

TEST(SplitMemoryTest, ReceiptWaitsForTheSessionsOfItsPackets) {
  Driven<SplitMemory> stage(SplitOptions{.packets = 24, .delay = 10s});
  stage.process(packets(1000, 1s));
  stage.process(packets(2000, 2s));
  EXPECT_EQ(stage.receipts.pending(), 2);
  stage.process(packets(3000, 11s));  // the first session is due
  ASSERT_EQ(stage.out.batches.size(), 1U);
  EXPECT_EQ(stage.receipts.pending(), 3);
  stage.out.settle();
  EXPECT_EQ(stage.receipts.done(), 1);
  stage.flush();
  stage.out.settle();
  EXPECT_EQ(stage.receipts.done(), 3);
  EXPECT_EQ(stage.receipts.failed(), 0);
}

TEST(SplitMemoryTest, ALostSessionFailsTheReceipt) {
  Driven<SplitMemory> stage(SplitOptions{.packets = 1});
  stage.out.fail_next(1);
  stage.process(packets(1000, 1s));
  EXPECT_EQ(stage.receipts.failed(), 1);
}

TEST(SplitMemoryTest, BatchWithoutSessionsIsAcknowledged) {
  Driven<SplitMemory> stage(SplitOptions{});
  testing::Packets odd;
  odd.raw(std::vector<std::uint8_t>(20));
  stage.process(odd.take());
  EXPECT_EQ(stage.receipts.done(), 1);
  EXPECT_EQ(stage.context.dropped_for("not-ip"), 1U);
}

TEST(SplitMemoryTest, BatchesHoldAtMost64SessionsInOrder) {
  Driven<SplitMemory> stage(SplitOptions{.packets = 1});
  testing::Packets many;
  for (std::uint16_t i = 0; i < 150; ++i) {
    many.add({.src_port = static_cast<std::uint16_t>(1000 + i), .dst_port = 53}, 1s);
  }
  stage.process(many.take());
  std::vector<std::size_t> sizes;
  for (const auto& given : stage.out.batches) sizes.push_back(given.items.size());
  EXPECT_THAT(sizes, ElementsAre(64, 64, 22));
  EXPECT_EQ(stage.out.batches[1].items[0].info.key.low_port, 1064);
}

TEST(SplitMemoryTest, HeartbeatMovesTime) {
  Driven<SplitMemory> stage(SplitOptions{.delay = 10s});
  stage.process(packets(1000, 1s));
  const auto sessions = stage.advance(Timestamp(11s));
  ASSERT_EQ(sessions.size(), 1U);
  EXPECT_EQ(sessions[0].info.due, Due::timeout);
}

}  // namespace
}  // namespace millrace
