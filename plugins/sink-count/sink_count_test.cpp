#include "sink_count.h"

#include <gtest/gtest.h>

#include "millrace/testing.h"

namespace millrace {
namespace {

using testing::Driven;

TEST(CountSessionsTest, AddsUpSessionsPacketsAndBytes) {
  Driven<CountSessions> sink;
  for (int i = 0; i < 2; ++i) {
    sink.write({testing::verdict("", {.packets = 3, .bytes = 300}),
                testing::verdict("", {.packets = 4, .bytes = 0, .due = Due::timeout})});
  }
  EXPECT_EQ(sink.context.counter("sessions").value(), 4U);
  EXPECT_EQ(sink.context.counter("packets").value(), 14U);
  EXPECT_EQ(sink.context.counter("bytes").value(), 600U);
  EXPECT_EQ(sink.context.counter("reason-full").value(), 2U);
  EXPECT_EQ(sink.context.counter("reason-timeout").value(), 2U);
  EXPECT_EQ(sink.context.counter("reason-end").value(), 0U);
  EXPECT_EQ(sink.context.counter("reason-evicted").value(), 0U);
}

TEST(CountSessionsTest, InstancesAddToTheSameCounters) {
  testing::TestContext context;
  Driven<CountSessions> one(context);
  Driven<CountSessions> other(context);
  one.write(std::vector<Verdict>(3));
  other.write(std::vector<Verdict>(3));
  EXPECT_EQ(context.counter("sessions").value(), 6U);
}

// What the host resolves when write returns must still be there.
TEST(CountSessionsTest, LeavesTheReceiptToTheHost) {
  testing::TestContext context;
  CountSessions sink;
  sink.open(context);
  testing::WatchedReceipt watched;
  Batch<Verdict> batch;
  batch.receipt = watched.make();
  sink.write(batch);
  EXPECT_EQ(watched.pending(), 1);
  batch.receipt.done();
  EXPECT_EQ(watched.done(), 1);
}

TEST(CountPacketsTest, CountsBytesOnTheWire) {
  Driven<CountPackets> sink;
  Packet packet;
  packet.captured = 60;
  packet.length = 1500;
  sink.write({packet});
  EXPECT_EQ(sink.context.counter("packets").value(), 1U);
  EXPECT_EQ(sink.context.counter("bytes").value(), 1500U);
}

TEST(SinkCountPlugin, OffersBothStagesAndTakesSessionsToo) {
  const StageDescriptor& sessions = testing::descriptor("sink-count");
  EXPECT_EQ(*sessions.input, item_type<Verdict>());
  ASSERT_EQ(sessions.adapters.size(), 1U);
  EXPECT_EQ(*sessions.adapters[0].from, item_type<Session>());
  EXPECT_EQ(*testing::descriptor("packets").input, item_type<Packet>());
}

}  // namespace
}  // namespace millrace
