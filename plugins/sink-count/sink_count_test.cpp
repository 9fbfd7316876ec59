#include "sink_count.h"

#include <gtest/gtest.h>

#include "millrace/plugin.h"
#include "millrace/testing.h"

namespace millrace {
namespace {

TEST(CountSessionsTest, AddsUpSessionsPacketsAndBytes) {
  testing::TestContext context;
  CountSessions sink;
  sink.open(context);
  Batch<Verdict> batch;
  batch.items.resize(2);
  batch.items[0].session.packets = 3;
  batch.items[0].session.bytes = 300;
  batch.items[1].session.packets = 4;
  batch.items[1].session.due = Due::timeout;
  sink.write(batch);
  sink.write(batch);
  EXPECT_EQ(context.counter("sessions").value(), 4U);
  EXPECT_EQ(context.counter("packets").value(), 14U);
  EXPECT_EQ(context.counter("bytes").value(), 600U);
  EXPECT_EQ(context.counter("reason-full").value(), 2U);
  EXPECT_EQ(context.counter("reason-timeout").value(), 2U);
  EXPECT_EQ(context.counter("reason-end").value(), 0U);
  EXPECT_EQ(context.counter("reason-evicted").value(), 0U);
}

TEST(CountSessionsTest, InstancesAddToTheSameCounters) {
  testing::TestContext context;
  CountSessions one;
  CountSessions other;
  one.open(context);
  other.open(context);
  Batch<Verdict> batch;
  batch.items.resize(3);
  one.write(batch);
  other.write(batch);
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
  testing::TestContext context;
  CountPackets sink;
  sink.open(context);
  Batch<Packet> batch;
  batch.items.resize(1);
  batch.items[0].captured = 60;
  batch.items[0].length = 1500;
  sink.write(batch);
  EXPECT_EQ(context.counter("packets").value(), 1U);
  EXPECT_EQ(context.counter("bytes").value(), 1500U);
}

}  // namespace
}  // namespace millrace

extern "C" const millrace::PluginHead millrace_plugin;

namespace millrace {
namespace {

TEST(SinkCountPlugin, OffersBothStagesAndTakesSessionsToo) {
  const PluginBody& body = millrace_plugin.body();
  ASSERT_EQ(body.stages.size(), 2U);
  EXPECT_EQ(body.stages[0].name, "sink-count");
  EXPECT_EQ(*body.stages[0].input, item_type<Verdict>());
  ASSERT_EQ(body.stages[0].adapters.size(), 1U);
  EXPECT_EQ(*body.stages[0].adapters[0].from, item_type<Session>());
  EXPECT_EQ(body.stages[1].name, "packets");
  EXPECT_EQ(*body.stages[1].input, item_type<Packet>());
}

}  // namespace
}  // namespace millrace
