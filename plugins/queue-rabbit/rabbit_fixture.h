#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "millrace/testing.h"

#include "consumer.h"
#include "publisher.h"
#include "support/services.h"

namespace millrace {

/// Keeps what comes out of a queue, with the time, and resolves it as the test says.
class Taker final : public Downstream {
 public:
  enum class Answer : std::uint8_t { done, fail, hold };

  void push(BatchBase& base) override {
    auto& batch = static_cast<Batch<Ticket>&>(base);
    if (batch.items.empty()) return;
    const std::lock_guard lock(mutex_);
    for (const Ticket& ticket : batch.items) {
      ++times_seen_[ticket.epoch];
      last_time_[ticket.epoch] = std::chrono::steady_clock::now();
    }
    ++batches_;
    if (answer == Answer::done) batch.receipt.done();
    if (answer == Answer::fail) batch.receipt.fail();
    if (answer == Answer::hold) held_.push_back(std::move(batch.receipt));
  }
  void resolve(Outcome outcome) {
    std::vector<Receipt> held;
    {
      const std::lock_guard lock(mutex_);
      held.swap(held_);
    }
    for (Receipt& receipt : held) receipt.resolve(outcome);
  }
  /// How many different tickets came.
  [[nodiscard]] std::size_t different() const {
    const std::lock_guard lock(mutex_);
    return times_seen_.size();
  }
  [[nodiscard]] int seen(std::uint32_t epoch) const {
    const std::lock_guard lock(mutex_);
    const auto found = times_seen_.find(epoch);
    return found == times_seen_.end() ? 0 : found->second;
  }
  [[nodiscard]] std::chrono::steady_clock::time_point time_of(std::uint32_t epoch) const {
    const std::lock_guard lock(mutex_);
    return last_time_.at(epoch);
  }
  [[nodiscard]] std::size_t batches() const {
    const std::lock_guard lock(mutex_);
    return batches_;
  }

  std::atomic<Answer> answer{Answer::done};

 private:
  mutable std::mutex mutex_;
  std::map<std::uint32_t, int> times_seen_;
  std::map<std::uint32_t, std::chrono::steady_clock::time_point> last_time_;
  std::vector<Receipt> held_;
  std::size_t batches_ = 0;
};

/// One analyser: the half that gives out, at work on a thread.
class Analyser {
 public:
  explicit Analyser(const RabbitOptions& options) : source_(options) {
    source_.open(context);
    thread_ = std::jthread([this](const std::stop_token& stop) {
      Output<Ticket> out(taker);
      source_.run(out, stop);
    });
  }
  Analyser(const Analyser&) = delete;
  Analyser& operator=(const Analyser&) = delete;
  ~Analyser() { end(); }

  void end() {
    if (!thread_.joinable()) return;
    thread_.request_stop();
    thread_.join();
    source_.close();
  }

  testing::TestContext context{"queue.out"};
  Taker taker;

 private:
  RabbitOut source_;
  std::jthread thread_;
};

class RabbitTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    services = std::make_unique<testing::Services>(testing::Services::Names{"rabbitmq"});
  }
  static void TearDownTestSuite() { services.reset(); }
  void SetUp() override {
    if (!services->missing().empty()) GTEST_SKIP() << services->missing();
    options_.server = services->address("rabbitmq");
    // Queues of their own, so that tests do not meet.
    options_.name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    options_.delay = std::chrono::milliseconds(500);
    options_.retry_pause = std::chrono::milliseconds(50);
    options_.wait = std::chrono::seconds(60);
    options_.bundle = 10;
  }

  static Batch<Ticket> tickets(std::uint32_t first, std::uint32_t count, Due why = Due::full) {
    Batch<Ticket> batch;
    for (std::uint32_t i = 0; i < count; ++i) {
      Ticket ticket;
      ticket.epoch = first + i;
      ticket.why = why;
      ticket.agent = "agent";
      batch.items.push_back(ticket);
    }
    return batch;
  }
  /// As the host calls a sink: again after Transient, and it ends its share of the receipt.
  static void put(RabbitIn& sink, Batch<Ticket> batch) {
    for (int attempt = 0;; ++attempt) {
      try {
        sink.write(batch);
        break;
      } catch (const Transient&) {
        if (attempt > 200) throw;
      }
    }
    batch.receipt.done();
  }
  template <class Condition>
  static bool within(std::chrono::seconds patience, Condition condition) {
    const auto end = std::chrono::steady_clock::now() + patience;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
  }
  /// What the broker has in its queues: lines of name, tab, messages.
  static std::string queues(const std::string& count = "messages") {
    return services->command("rabbitmqctl", {"-q", "list_queues", "name", count});
  }
  static std::size_t messages_in(const std::string& queue, const std::string& count = "messages") {
    const std::string list = queues(count);
    const std::size_t at = list.find(queue + "\t");
    return at == std::string::npos ? 0 : std::stoul(list.substr(at + queue.size() + 1));
  }

  static inline std::unique_ptr<testing::Services> services;
  RabbitOptions options_;
  testing::TestContext context_{"queue.in"};
};

}  // namespace millrace
