#include "run/queue.h"

#include <thread>

#include <gtest/gtest.h>

#include "millrace/packet.h"
#include "millrace/testing.h"

namespace millrace::host {
namespace {

using namespace std::chrono_literals;
using Kind = BatchQueue::Popped::Kind;

BoxedBatch batch(std::size_t items, Timestamp watermark = kNoTime, std::size_t bytes = 0) {
  Batch<Packet> made{std::vector<Packet>(items)};
  made.watermark = watermark;
  made.storage_bytes = bytes;
  return made.type().box(std::move(made));
}

std::size_t count(const BoxedBatch& boxed) { return boxed->type().count(*boxed); }

TEST(BatchQueueTest, PopsInOrderThenEnds) {
  BatchQueue queue({}, 1);
  queue.push(batch(1), 0);
  queue.push(batch(2), 0);
  queue.producer_done(0);
  auto first = queue.pop({}, 0ms);
  auto second = queue.pop({}, 0ms);
  EXPECT_EQ(count(first.batch), 1U);
  EXPECT_EQ(first.number, 0U);
  EXPECT_EQ(count(second.batch), 2U);
  EXPECT_EQ(second.number, 1U);
  EXPECT_EQ(queue.pop({}, 0ms).kind, Kind::end);
}

TEST(BatchQueueTest, IdleWhenNothingComes) {
  BatchQueue queue({}, 1);
  EXPECT_EQ(queue.pop({}, 0ms).kind, Kind::idle);
}

TEST(BatchQueueTest, DropNewestAndDropOldest) {
  BatchQueue newest({.batches = 1, .when_full = WhenFull::drop_newest}, 1);
  EXPECT_TRUE(newest.push(batch(1), 0).empty());
  EXPECT_EQ(count(newest.push(batch(2), 0).at(0)), 2U);
  BatchQueue oldest({.batches = 1, .when_full = WhenFull::drop_oldest}, 1);
  EXPECT_TRUE(oldest.push(batch(1), 0).empty());
  EXPECT_EQ(count(oldest.push(batch(2), 0).at(0)), 1U);
}

TEST(BatchQueueTest, AsManyItemsAsAStageWantsAtOnceMayWait) {
  BatchQueue queue({.batches = 2, .bytes = {10000}, .when_full = WhenFull::drop_newest}, 1, 10);
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(queue.push(batch(2), 0).empty()) << i;
  EXPECT_EQ(queue.push(batch(2), 0).size(), 1U) << "ten wait";
  EXPECT_EQ(count(queue.pop({.items = 4}, 0ms).batch), 4U);
  EXPECT_TRUE(queue.push(batch(4), 0).empty());
  EXPECT_EQ(queue.push(batch(1), 0).size(), 1U);
  queue.pop({}, 0ms);
  EXPECT_EQ(queue.push(batch(0, kNoTime, 20000), 0).size(), 1U) << "bytes bound it as well";
}

TEST(BatchQueueTest, BytesBoundItToo) {
  BatchQueue queue({.batches = 100, .bytes = {1000}, .when_full = WhenFull::drop_newest}, 1);
  EXPECT_TRUE(queue.push(batch(0, kNoTime, 5000), 0).empty())
      << "a batch larger than the bound passes an empty queue";
  EXPECT_EQ(queue.push(batch(0, kNoTime, 1), 0).size(), 1U);
}

TEST(BatchQueueTest, BlocksUntilThereIsRoom) {
  BatchQueue queue({.batches = 1}, 1);
  queue.push(batch(1), 0);
  std::jthread producer([&] { queue.push(batch(2), 0); });
  EXPECT_EQ(count(queue.pop({}, 10s).batch), 1U);
  EXPECT_EQ(count(queue.pop({}, 10s).batch), 2U);
}

TEST(BatchQueueTest, LossyAndAbandonedQueuesLetProducersGo) {
  BatchQueue queue({.batches = 1}, 1);
  queue.push(batch(1), 0);
  std::vector<BoxedBatch> dropped;
  std::jthread producer([&] { dropped = queue.push(batch(2), 0); });
  queue.set_lossy(true);
  producer.join();
  ASSERT_EQ(dropped.size(), 1U);
  EXPECT_EQ(count(dropped[0]), 2U);
  EXPECT_EQ(queue.abandon().size(), 1U);
  EXPECT_EQ(queue.push(batch(3), 0).size(), 1U);
}

TEST(BatchQueueTest, WatermarkIsThatOfTheSlowestInput) {
  BatchQueue queue({}, 2);
  queue.push(batch(1, Timestamp(10s)), 0);
  queue.push(batch(1, Timestamp(5s)), 1);
  queue.push(batch(1, Timestamp(20s)), 0);
  EXPECT_EQ(queue.pop({}, 0ms).batch->watermark, kNoTime);
  EXPECT_EQ(queue.pop({}, 0ms).batch->watermark, Timestamp(5s));
  queue.producer_done(1);
  EXPECT_EQ(queue.pop({}, 0ms).batch->watermark, Timestamp(20s));
}

TEST(BatchQueueTest, JoinsWaitingBatchesUpToTheNumberWanted) {
  BatchQueue queue({}, 1);
  for (int i = 0; i < 5; ++i) queue.push(batch(3), 0);
  queue.push(batch(50), 0);
  queue.producer_done(0);
  const Coalesce six{6, 10s};
  EXPECT_EQ(count(queue.pop(six, 0ms).batch), 6U);
  EXPECT_EQ(count(queue.pop(six, 0ms).batch), 6U);
  EXPECT_EQ(count(queue.pop(six, 0ms).batch), 3U)
      << "a batch that is large enough alone is not joined";
  EXPECT_EQ(count(queue.pop(six, 0ms).batch), 50U);
}

TEST(BatchQueueTest, ManyJoinedBatchesNestNoDeeperThanAStackHolds) {
  constexpr int kBatches = 300000;
  QueueOptions options;
  options.batches = kBatches + 1;
  options.bytes = 1_GiB;
  BatchQueue queue(options, 1);
  testing::WatchedReceipt receipts;
  for (int i = 0; i < kBatches; ++i) {
    BoxedBatch one = batch(1);
    one->receipt = receipts.make();
    one->storage = std::make_shared<int>(i);
    queue.push(std::move(one), 0);
  }
  BatchQueue::Popped popped = queue.pop({kBatches, 10s}, 0ms);
  ASSERT_EQ(count(popped.batch), static_cast<std::size_t>(kBatches));
  popped.batch->receipt.done();
  EXPECT_EQ(receipts.done(), kBatches);
  popped.batch.reset();
}

TEST(BatchQueueTest, OrderHoldsWhileAWorkerWaitsForMore) {
  BatchQueue queue({}, 1);
  queue.push(batch(1), 0);
  BatchQueue::Popped joined;
  std::jthread worker([&] { joined = queue.pop({2, 10s}, 10s); });
  // The worker has taken the first batch and waits for a second item: nobody else may get it.
  while (queue.waiting() != 0) std::this_thread::yield();
  std::vector<std::uint64_t> numbers;
  std::jthread other([&] {
    for (auto next = queue.pop({2, 0ms}, 10s); next.kind == Kind::batch;
         next = queue.pop({2, 0ms}, 10s)) {
      numbers.push_back(next.number);
    }
  });
  queue.push(batch(1), 0);
  queue.push(batch(3), 0);
  queue.producer_done(0);
  worker.join();
  other.join();
  EXPECT_EQ(count(joined.batch), 2U);
  EXPECT_EQ(joined.number, 0U);
  EXPECT_EQ(numbers, std::vector<std::uint64_t>{1});
}

}  // namespace
}  // namespace millrace::host
