#pragma once

/// What tests of sources of changes need: a next stage, and a source in a thread.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "millrace/change.h"
#include "millrace/testing.h"

#include "support/eventually.h"

namespace millrace {

/// The next stage: keeps changes, and does with receipts what the test says.
class Collector final : public Downstream {
 public:
  enum class Receipts { done, hold };

  void push(BatchBase& base) override {
    auto& batch = static_cast<Batch<Change>&>(base);
    const std::lock_guard lock(mutex_);
    if (batch.items.empty()) {
      ++empty_batches_;
      return;
    }
    for (const Change& change : batch.items) {
      const auto& row = change.after.empty() ? change.before : change.after;
      seen_.push_back(row.at(0).second.value_or("NULL"));
      changes_.push_back(change);
    }
    if (receipts_ == Receipts::done) {
      batch.receipt.done();
    } else {
      held_.push_back(std::move(batch.receipt));
    }
  }
  [[nodiscard]] std::vector<Change> changes() const {
    const std::lock_guard lock(mutex_);
    return changes_;
  }
  /// Batches without changes, which only tell the time.
  [[nodiscard]] std::size_t empty_batches() const {
    const std::lock_guard lock(mutex_);
    return empty_batches_;
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
  std::vector<Change> changes_;
  std::size_t empty_batches_ = 0;
};

/// A source that runs from construction to `stop`.
template <class Stage, class Options>
class RunningChanges {
 public:
  explicit RunningChanges(const Options& options, Collector& out) : source_(options) {
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
  RunningChanges(const RunningChanges&) = delete;
  RunningChanges& operator=(const RunningChanges&) = delete;
  ~RunningChanges() { stop(); }

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
  Stage source_;
  std::string failure_;
  std::atomic<bool> ended_{false};
  std::jthread thread_;
};

}  // namespace millrace
