#include "queue_memory.h"

#include <atomic>
#include <future>
#include <mutex>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "millrace/testing.h"

namespace millrace {
namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

/// Keeps what comes out, with the time, and resolves it as the test says.
class Taker final : public Downstream {
 public:
  void push(BatchBase& base) override {
    auto& batch = static_cast<Batch<Ticket>&>(base);
    const std::lock_guard lock(mutex_);
    for (const Ticket& ticket : batch.items) {
      epochs_.push_back(ticket.epoch);
      times_.push_back(steady_clock::now());
    }
    if (batch.items.empty()) return;
    if (fail > 0) {
      --fail;
      batch.receipt.fail();
    } else if (hold) {
      held_.push_back(std::move(batch.receipt));
    } else {
      batch.receipt.done();
    }
  }
  void release() {
    const std::lock_guard lock(mutex_);
    hold = false;
    for (Receipt& receipt : held_) receipt.done();
    held_.clear();
  }
  std::vector<std::uint32_t> epochs() {
    const std::lock_guard lock(mutex_);
    return epochs_;
  }
  std::vector<steady_clock::time_point> times() {
    const std::lock_guard lock(mutex_);
    return times_;
  }

  int fail = 0;
  bool hold = false;

 private:
  std::mutex mutex_;
  std::vector<std::uint32_t> epochs_;
  std::vector<steady_clock::time_point> times_;
  std::vector<Receipt> held_;
};

class QueueMemoryTest : public ::testing::Test {
 protected:
  void start(const QueueMemoryOptions& options) {
    out_context_.shared_objects = in_context_.shared_objects;
    in_ = std::make_unique<QueueMemoryIn>(options);
    out_ = std::make_unique<QueueMemoryOut>(options);
    out_->open(out_context_);
    in_->open(in_context_);
    thread_ = std::jthread([this] {
      Output<Ticket> output(taker_);
      out_->run(output, {});
      ended_ = true;
    });
  }
  void give(std::uint32_t first, std::uint32_t count, Due why = Due::full) {
    Batch<Ticket> batch;
    for (std::uint32_t i = 0; i < count; ++i) {
      Ticket ticket;
      ticket.epoch = first + i;
      ticket.why = why;
      batch.items.push_back(ticket);
    }
    in_->write(batch);
  }
  template <class Condition>
  static bool within(Condition condition, std::chrono::seconds patience = 10s) {
    const auto end = steady_clock::now() + patience;
    while (!condition()) {
      if (steady_clock::now() > end) return false;
      std::this_thread::sleep_for(1ms);
    }
    return true;
  }
  void end() {
    in_->flush();
    thread_.join();
  }

  testing::TestContext in_context_{"queue.in"};
  testing::TestContext out_context_{"queue.out"};
  Taker taker_;
  std::unique_ptr<QueueMemoryIn> in_;
  std::unique_ptr<QueueMemoryOut> out_;
  std::atomic<bool> ended_{false};
  std::jthread thread_;
};

TEST_F(QueueMemoryTest, GivesOutInOrderAndEndsWhenAllIsSettled) {
  start({.batch = 3});
  give(0, 10);
  end();
  EXPECT_THAT(taker_.epochs(), ::testing::ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
}

TEST_F(QueueMemoryTest, TicketsOfTheBeginningWaitForTheDelay) {
  start({.delay = 300ms});
  const auto begin = steady_clock::now();
  give(0, 1, Due::timeout);
  give(1, 1, Due::full);
  ASSERT_TRUE(within([&] { return taker_.epochs().size() == 2; }));
  EXPECT_THAT(taker_.epochs(), ::testing::ElementsAre(1, 0));
  EXPECT_GE(taker_.times()[1] - begin, 300ms);
  end();
}

TEST_F(QueueMemoryTest, AtTheEndNothingWaitsForTheDelay) {
  start({.delay = 1h});
  give(0, 5, Due::timeout);
  end();
  EXPECT_EQ(taker_.epochs().size(), 5U);
}

TEST_F(QueueMemoryTest, FailedTicketsComeAgain) {
  taker_.fail = 2;
  start({});
  give(0, 3);
  end();
  EXPECT_EQ(taker_.epochs().size(), 9U);
  EXPECT_EQ(out_context_.counter("retried").value(), 6U);
}

TEST_F(QueueMemoryTest, GivenUpAfterSoManyAttempts) {
  taker_.fail = 1000;
  start({.max_attempts = 3});
  give(0, 2);
  end();
  EXPECT_EQ(taker_.epochs().size(), 6U);
  EXPECT_EQ(out_context_.counter("dead").value(), 2U);
  ASSERT_EQ(out_context_.messages().size(), 1U);
  EXPECT_THAT(out_context_.messages()[0].second, ::testing::HasSubstr("after 3 attempts"));
}

TEST_F(QueueMemoryTest, DoesNotEndWhileSomethingIsInWork) {
  taker_.hold = true;
  start({});
  give(0, 1);
  in_->flush();
  ASSERT_TRUE(within([&] { return taker_.epochs().size() == 1; }));
  EXPECT_FALSE(ended_);
  taker_.release();
  thread_.join();
  EXPECT_TRUE(ended_);
}

TEST_F(QueueMemoryTest, TakesNoMoreThanItHoldsUntilThereIsRoom) {
  taker_.hold = true;
  start({.max_tickets = 4});
  give(0, 4);
  auto more = std::async(std::launch::async, [this] { give(4, 1); });
  ASSERT_TRUE(within([&] { return taker_.epochs().size() == 4; }));
  EXPECT_EQ(more.wait_for(50ms), std::future_status::timeout);
  taker_.release();
  EXPECT_EQ(more.wait_for(10s), std::future_status::ready);
  end();
  EXPECT_EQ(taker_.epochs().size(), 5U);
}

}  // namespace
}  // namespace millrace
