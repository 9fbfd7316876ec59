#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "millrace/batch.h"
#include "millrace/context.h"

namespace millrace::testing {

/// Moves only when the test says so. Any thread may read it; one moves it.
class ManualClock final : public Clock {
 public:
  [[nodiscard]] Timestamp now() const override { return now_; }
  void set(Timestamp now) { now_ = now; }
  void advance(Duration by) { now_ = now_.load() + by; }

 private:
  std::atomic<Timestamp> now_{Timestamp(std::chrono::hours(24))};
};

/// Records what a stage reports. Safe to use from the stage's threads.
class TestContext final : public Context {
 public:
  explicit TestContext(std::string stage = "stage") : stage_(std::move(stage)) {}

  [[nodiscard]] std::string_view stage() const override { return stage_; }
  [[nodiscard]] const Clock& clock() const override { return manual_clock; }
  void log(LogLevel level, std::string_view message) override {
    const std::lock_guard lock(mutex_);
    messages_.emplace_back(level, message);
  }
  Counter& counter(std::string_view name) override {
    const std::lock_guard lock(mutex_);
    return counters_[std::string(name)];
  }
  void dropped(std::string_view reason, std::uint64_t n) override {
    const std::lock_guard lock(mutex_);
    dropped_[std::string(reason)] += n;
  }
  void handled(std::uint64_t n) override { handled_.add(n); }
  void rejected(std::string_view reason, BatchBase& items) override {
    const std::lock_guard lock(mutex_);
    for (std::size_t i = 0; i < items.type().count(items); ++i) {
      std::string json;
      items.type().describe(items, i, json);
      rejected_.emplace_back(reason, std::move(json));
    }
    items.receipt.done();
  }
  void progress(std::uint64_t done, std::uint64_t total) override {
    const std::lock_guard lock(mutex_);
    progress_ = {done, total};
  }
  Condition& condition(std::string_view name) override {
    const std::lock_guard lock(mutex_);
    return conditions_.try_emplace(std::string(name)).first->second;
  }
  [[nodiscard]] std::string not_ready() const override {
    const std::lock_guard lock(mutex_);
    return not_ready_;
  }
  [[nodiscard]] std::string incomplete() const override {
    const std::lock_guard lock(mutex_);
    return incomplete_;
  }
  [[nodiscard]] std::filesystem::path find_file(const std::filesystem::path& path) const override {
    return path;
  }

  [[nodiscard]] std::uint64_t dropped_for(const std::string& reason) const {
    const std::lock_guard lock(mutex_);
    const auto found = dropped_.find(reason);
    return found == dropped_.end() ? 0 : found->second;
  }
  [[nodiscard]] std::map<std::string, std::uint64_t> all_dropped() const {
    const std::lock_guard lock(mutex_);
    return dropped_;
  }
  [[nodiscard]] std::uint64_t handled_items() const { return handled_.value(); }
  /// Reason and JSON of every item that was given to `rejected`.
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> all_rejected() const {
    const std::lock_guard lock(mutex_);
    return rejected_;
  }
  [[nodiscard]] std::vector<std::pair<LogLevel, std::string>> messages() const {
    const std::lock_guard lock(mutex_);
    return messages_;
  }
  [[nodiscard]] std::pair<std::uint64_t, std::uint64_t> last_progress() const {
    const std::lock_guard lock(mutex_);
    return progress_;
  }

  /// Why the condition fails; empty: it holds.
  [[nodiscard]] std::string failing(const std::string& condition) const {
    const std::lock_guard lock(mutex_);
    const auto found = conditions_.find(condition);
    return found == conditions_.end() ? std::string() : found->second.why();
  }
  /// What `not_ready` returns from now on.
  void set_not_ready(std::string why) {
    const std::lock_guard lock(mutex_);
    not_ready_ = std::move(why);
  }
  /// What `incomplete` returns from now on.
  void set_incomplete(std::string why) {
    const std::lock_guard lock(mutex_);
    incomplete_ = std::move(why);
  }

  ManualClock manual_clock;
  /// What `shared` gives out; set it from another context to test stages that meet.
  std::shared_ptr<SharedObjects> shared_objects = std::make_shared<SharedObjects>();

 protected:
  std::shared_ptr<void> shared_erased(std::string_view name,
                                      const std::function<std::shared_ptr<void>()>& make) override {
    return shared_objects->get(name, make);
  }

 private:
  class RecordedCondition final : public Condition {
   public:
    void fails(std::string_view why, Grace /*grace*/) noexcept override {
      const std::lock_guard lock(mutex_);
      why_ = why;
    }
    void holds() noexcept override {
      const std::lock_guard lock(mutex_);
      why_.clear();
    }
    [[nodiscard]] std::string why() const {
      const std::lock_guard lock(mutex_);
      return why_;
    }

   private:
    mutable std::mutex mutex_;
    std::string why_;
  };

  std::string stage_;
  mutable std::mutex mutex_;
  std::vector<std::pair<LogLevel, std::string>> messages_;
  std::map<std::string, Counter> counters_;
  std::map<std::string, std::uint64_t> dropped_;
  std::map<std::string, RecordedCondition> conditions_;
  std::string not_ready_;
  std::string incomplete_;
  Counter handled_;
  std::vector<std::pair<std::string, std::string>> rejected_;
  std::pair<std::uint64_t, std::uint64_t> progress_{};
};

}  // namespace millrace::testing
