#include "sink_count.h"

#include <gtest/gtest.h>

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
  sink.write(batch);
  sink.write(batch);
  EXPECT_EQ(context.counter("sessions").value(), 4U);
  EXPECT_EQ(context.counter("packets").value(), 14U);
  EXPECT_EQ(context.counter("bytes").value(), 600U);
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
