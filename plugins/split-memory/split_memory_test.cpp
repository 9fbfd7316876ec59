#include "split_memory.h"

#include <array>
#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "millrace/testing.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using namespace std::chrono_literals;

/// An Ethernet frame with an IPv4 UDP packet of `size` payload bytes.
std::vector<std::byte> udp(std::uint16_t src_port, std::uint16_t dst_port, std::size_t size) {
  std::vector<std::uint8_t> f(14 + 20 + 8 + size, 0x41);
  f[12] = 0x08;
  f[13] = 0x00;
  f[14] = 0x45;
  const auto total = static_cast<std::uint16_t>(28 + size);
  f[16] = static_cast<std::uint8_t>(total >> 8U);
  f[17] = static_cast<std::uint8_t>(total);
  f[20] = f[21] = 0;
  f[23] = 17;
  std::copy_n(std::array<std::uint8_t, 8>{10, 0, 0, 1, 10, 0, 0, 2}.begin(), 8, f.begin() + 26);
  const std::array<std::uint16_t, 3> words = {src_port, dst_port,
                                              static_cast<std::uint16_t>(8 + size)};
  for (std::size_t i = 0; i < words.size(); ++i) {
    f[34 + 2 * i] = static_cast<std::uint8_t>(words[i] >> 8U);
    f[35 + 2 * i] = static_cast<std::uint8_t>(words[i]);
  }
  std::vector<std::byte> bytes(f.size());
  std::memcpy(bytes.data(), f.data(), f.size());
  return bytes;
}

class SplitMemoryTest : public ::testing::Test {
 protected:
  void start(const SplitOptions& options) {
    stage_ = std::make_unique<SplitMemory>(options);
    stage_->open(context_);
  }
  void give(const std::vector<std::byte>& frame, Duration at, int times = 1) {
    Batch<Packet> batch;
    for (int i = 0; i < times; ++i) {
      batch.items.push_back({Timestamp(at), frame.data(), static_cast<std::uint32_t>(frame.size()),
                             static_cast<std::uint32_t>(frame.size()), LinkType::ethernet});
    }
    batch.watermark = Timestamp(at);
    batch.receipt = receipts_.make();
    Output<Session> out(recorder_);
    stage_->process(batch, out);
  }
  void flush() {
    Output<Session> out(recorder_);
    stage_->flush(out);
  }

  testing::TestContext context_;
  testing::Recorder<Session> recorder_;
  testing::WatchedReceipt receipts_;
  std::unique_ptr<SplitMemory> stage_;
};

TEST_F(SplitMemoryTest, FullSessionIsGivenOnAtOnceAndTheRestIsCounted) {
  start({.packets = 3});
  give(udp(1000, 53, 10), 1s, 5);
  const auto sessions = recorder_.items();
  ASSERT_EQ(sessions.size(), 1U);
  EXPECT_EQ(sessions[0].info.due, Due::full);
  EXPECT_EQ(sessions[0].info.packets, 3U);
  EXPECT_EQ(sessions[0].packets.size(), 3U);
  EXPECT_EQ(context_.dropped_for("after-due"), 2U);
  EXPECT_EQ(context_.handled_items(), 3U);
}

TEST_F(SplitMemoryTest, ReceiptWaitsForTheSessionsOfItsPackets) {
  start({.packets = 24, .delay = 10s});
  give(udp(1000, 53, 10), 1s);
  give(udp(2000, 53, 10), 2s);
  EXPECT_EQ(receipts_.pending(), 2);
  give(udp(3000, 53, 10), 11s);  // the first session is due
  ASSERT_EQ(recorder_.batches.size(), 1U);
  EXPECT_EQ(receipts_.pending(), 3);
  recorder_.batches[0].receipt.done();
  EXPECT_EQ(receipts_.done(), 1);
  flush();
  for (auto& batch : recorder_.batches) batch.receipt.done();
  EXPECT_EQ(receipts_.done(), 3);
  EXPECT_EQ(receipts_.failed(), 0);
}

TEST_F(SplitMemoryTest, ALostSessionFailsTheReceipt) {
  start({.packets = 1});
  give(udp(1000, 53, 10), 1s);
  recorder_.batches.clear();
  EXPECT_EQ(receipts_.failed(), 1);
}

TEST_F(SplitMemoryTest, BatchWithoutSessionsIsAcknowledged) {
  start({});
  give(std::vector<std::byte>(20), 1s);
  EXPECT_EQ(receipts_.done(), 1);
  EXPECT_EQ(context_.dropped_for("not-ip"), 1U);
}

TEST_F(SplitMemoryTest, BatchesHoldAtMost64SessionsInOrder) {
  start({.packets = 1});
  Batch<Packet> batch;
  std::vector<std::vector<std::byte>> frames;
  for (std::uint16_t i = 0; i < 150; ++i)
    frames.push_back(udp(static_cast<std::uint16_t>(1000 + i), 53, 4));
  for (const auto& frame : frames) {
    batch.items.push_back({Timestamp(1s), frame.data(), static_cast<std::uint32_t>(frame.size()),
                           static_cast<std::uint32_t>(frame.size()), LinkType::ethernet});
  }
  Output<Session> out(recorder_);
  stage_->process(batch, out);
  std::vector<std::size_t> sizes;
  for (const auto& given : recorder_.batches) sizes.push_back(given.items.size());
  EXPECT_THAT(sizes, ElementsAre(64, 64, 22));
  EXPECT_EQ(recorder_.batches[1].items[0].info.key.low_port, 1064);
}

TEST_F(SplitMemoryTest, HeartbeatMovesTime) {
  start({.delay = 10s});
  give(udp(1000, 53, 10), 1s);
  Batch<Packet> tick;
  tick.watermark = Timestamp(11s);
  Output<Session> out(recorder_);
  stage_->process(tick, out);
  ASSERT_EQ(recorder_.items().size(), 1U);
  EXPECT_EQ(recorder_.items()[0].info.due, Due::timeout);
}

}  // namespace
}  // namespace millrace
