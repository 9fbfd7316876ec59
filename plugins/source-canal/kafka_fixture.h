#pragma once

/// A cluster and a source-canal in a thread.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "millrace/error.h"
#include "millrace/testing.h"

#include "source_canal.h"
#include "support/kafka_cluster.h"

namespace millrace {

/// The next stage: keeps changes, and does with receipts what the test says.
class Collector final : public Downstream {
 public:
  enum class Receipts { done, hold };

  void push(BatchBase& base) override {
    auto& batch = static_cast<Batch<Change>&>(base);
    const std::lock_guard lock(mutex_);
    if (batch.items.empty()) return;
    ++batches_;
    for (const Change& change : batch.items) {
      const auto& row = change.after.empty() ? change.before : change.after;
      seen_.push_back(row.at(0).second.value_or("NULL"));
    }
    if (receipts_ == Receipts::done) {
      batch.receipt.done();
    } else {
      held_.push_back(std::move(batch.receipt));
    }
  }
  void set(Receipts receipts) {
    const std::lock_guard lock(mutex_);
    receipts_ = receipts;
  }
  /// The first column of every change.
  [[nodiscard]] std::vector<std::string> seen() const {
    const std::lock_guard lock(mutex_);
    return seen_;
  }
  [[nodiscard]] std::size_t count() const { return seen().size(); }
  [[nodiscard]] std::size_t held() const {
    const std::lock_guard lock(mutex_);
    return held_.size();
  }
  void resolve(std::size_t position, Outcome outcome) {
    const std::lock_guard lock(mutex_);
    held_.at(position).resolve(outcome);
  }
  void resolve_all(Outcome outcome) {
    const std::lock_guard lock(mutex_);
    for (Receipt& receipt : held_) receipt.resolve(outcome);
    held_.clear();
  }

 private:
  mutable std::mutex mutex_;
  Receipts receipts_ = Receipts::done;
  std::vector<std::string> seen_;
  std::vector<Receipt> held_;
  std::size_t batches_ = 0;
};

/// A source that runs from construction (or `start`) to `stop`.
class RunningSource {
 public:
  explicit RunningSource(const CanalOptions& options, Collector& out) : source_(options) {
    source_.open(context);
    thread_ = std::jthread([this, &out](const std::stop_token& stop) {
      try {
        Output<Change> output(out);
        source_.run(output, stop);
      } catch (const std::exception& error) {
        failure_ = error.what();
      }
      ended_ = true;
    });
  }
  RunningSource(const RunningSource&) = delete;
  RunningSource& operator=(const RunningSource&) = delete;
  ~RunningSource() { stop(); }

  void stop() {
    if (!thread_.joinable()) return;
    thread_.request_stop();
    thread_.join();
    source_.close();
  }
  [[nodiscard]] bool ended() const { return ended_; }
  /// Of an ended one.
  [[nodiscard]] const std::string& failure() const { return failure_; }
  [[nodiscard]] bool logged(const std::string& part) const {
    const auto messages = context.messages();
    return std::any_of(messages.begin(), messages.end(), [&](const auto& message) {
      return message.second.find(part) != std::string::npos;
    });
  }

  testing::TestContext context;

 private:
  SourceCanal source_;
  std::string failure_;
  std::atomic<bool> ended_{false};
  std::jthread thread_;
};

class KafkaTest : public ::testing::Test {
 protected:
  [[nodiscard]] CanalOptions options() const {
    CanalOptions options;
    options.brokers = cluster.brokers();
    options.topics = {"changes"};
    options.commit_every = 10ms;
    options.retry_pause = 50ms;
    options.wait = 20s;
    options.kafka = {{"session.timeout.ms", "6000"}};
    return options;
  }
  static std::string inserted(int id, const std::string& table = "t") {
    return fmt::format(
        R"({{"data":[{{"id":"{}"}}],"database":"d","isDdl":false,"table":"{}","type":"INSERT"}})",
        id, table);
  }
  void produce(int first, int last, int partition = 0) const {
    for (int id = first; id <= last; ++id) cluster.produce("changes", inserted(id), partition);
  }
  static std::vector<std::string> ids(int first, int last) {
    std::vector<std::string> list;
    for (int id = first; id <= last; ++id) list.push_back(std::to_string(id));
    return list;
  }

  MockCluster cluster;
  Collector out;
};

}  // namespace millrace
