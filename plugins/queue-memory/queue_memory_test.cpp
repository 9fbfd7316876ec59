#include "queue_memory.h"

#include <future>
#include <memory>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "millrace/testing.h"

namespace millrace {
namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

class QueueMemoryTest : public ::testing::Test {
 protected:
  using Queue = testing::DrivenQueue<QueueMemoryIn, QueueMemoryOut>;

  /// What comes out is acknowledged at once, unless the test says otherwise before it gives.
  void start(const QueueMemoryOptions& options) {
    queue_ = std::make_unique<Queue>(options);
    queue_->out.out.acknowledge();
    queue_->out.start();
  }
  void give(std::uint32_t first, std::uint32_t count, Due why = Due::full) {
    std::vector<Ticket> tickets;
    for (std::uint32_t i = 0; i < count; ++i) {
      tickets.push_back(testing::ticket({.epoch = first + i, .due = why}));
    }
    queue_->in.write(std::move(tickets));
  }
  [[nodiscard]] std::vector<std::uint32_t> epochs() const {
    std::vector<std::uint32_t> list;
    for (const Ticket& ticket : queue_->out.out.items()) list.push_back(ticket.epoch);
    return list;
  }
  /// All has been given; waits for the end.
  void end() {
    queue_->in.flush();
    queue_->out.join();
  }
  testing::Recorder<Ticket>& out() { return queue_->out.out; }

  std::unique_ptr<Queue> queue_;
};

TEST_F(QueueMemoryTest, GivesOutInOrderAndEndsWhenAllIsSettled) {
  start({.batch = 3});
  give(0, 10);
  end();
  EXPECT_THAT(epochs(), ::testing::ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
}

TEST_F(QueueMemoryTest, TicketsOfTheBeginningWaitForTheDelay) {
  start({.delay = 300ms});
  const auto begin = steady_clock::now();
  give(0, 1, Due::timeout);
  give(1, 1, Due::full);
  ASSERT_TRUE(out().wait_for(2));
  EXPECT_GE(steady_clock::now() - begin, 300ms);
  EXPECT_THAT(epochs(), ::testing::ElementsAre(1, 0));
  end();
}

TEST_F(QueueMemoryTest, AtTheEndNothingWaitsForTheDelay) {
  start({.delay = 1h});
  give(0, 5, Due::timeout);
  end();
  EXPECT_EQ(epochs().size(), 5U);
}

TEST_F(QueueMemoryTest, FailedTicketsComeAgain) {
  start({});
  out().fail_next(2);
  give(0, 3);
  end();
  EXPECT_EQ(epochs().size(), 9U);
  EXPECT_EQ(queue_->out_context.counter("retried").value(), 6U);
}

TEST_F(QueueMemoryTest, GivenUpAfterSoManyAttempts) {
  start({.max_attempts = 3});
  out().fail_next(1000);
  give(0, 2);
  end();
  EXPECT_EQ(epochs().size(), 6U);
  EXPECT_EQ(queue_->out_context.counter("dead").value(), 2U);
  ASSERT_EQ(queue_->out_context.messages().size(), 1U);
  EXPECT_THAT(queue_->out_context.messages()[0].second, ::testing::HasSubstr("after 3 attempts"));
}

TEST_F(QueueMemoryTest, PausesWhileEverythingFails) {
  start({.batch = 1, .max_attempts = 1});
  out().fail_next(1000000);
  const auto begin = steady_clock::now();
  give(0, FailurePause::kFree + 5);
  end();
  // Four pauses; without them these tickets fail within a millisecond.
  EXPECT_GE(steady_clock::now() - begin, 50ms + 100ms + 200ms + 400ms);
  EXPECT_EQ(queue_->out_context.counter("dead").value(), FailurePause::kFree + 5);
}

TEST_F(QueueMemoryTest, DoesNotEndWhileSomethingIsInWork) {
  start({});
  out().acknowledge(false);
  give(0, 1);
  queue_->in.flush();
  ASSERT_TRUE(out().wait_for(1));
  EXPECT_FALSE(queue_->out.ended());
  out().settle();
  queue_->out.join();
  EXPECT_TRUE(queue_->out.ended());
}

TEST_F(QueueMemoryTest, TakesNoMoreThanItHoldsUntilThereIsRoom) {
  start({.max_tickets = 4});
  out().acknowledge(false);
  give(0, 4);
  auto more = std::async(std::launch::async, [this] { give(4, 1); });
  ASSERT_TRUE(out().wait_for(4));
  EXPECT_EQ(more.wait_for(50ms), std::future_status::timeout);
  out().acknowledge();
  out().settle();
  EXPECT_EQ(more.wait_for(10s), std::future_status::ready);
  end();
  EXPECT_EQ(epochs().size(), 5U);
}

}  // namespace
}  // namespace millrace
