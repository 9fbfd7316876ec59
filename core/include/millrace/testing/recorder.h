#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "millrace/stage.h"

namespace millrace::testing {

/// Throws on the calls that a test names, counted from 1. A fake calls it where the real thing can
/// fail: `void send(...) { faults(); ... }`. Threads: one at a time.
class Faults {
 public:
  /// Any exception: Transient, Rejected, std::bad_alloc, ...
  template <class E>
  Faults& on_call(int number, E error) {
    return on_calls(number, number, std::move(error));
  }
  /// `first` and `last` included.
  template <class E>
  Faults& on_calls(int first, int last, E error) {
    faults_.push_back({first, last, [error = std::move(error)] { throw error; }});
    return *this;
  }
  void operator()() {
    ++calls_;
    for (const Fault& fault : faults_) {
      if (fault.first <= calls_ && calls_ <= fault.last) fault.raise();
    }
  }
  [[nodiscard]] int calls() const { return calls_; }

 private:
  struct Fault {
    int first;
    int last;
    std::function<void()> raise;
  };
  std::vector<Fault> faults_;
  int calls_ = 0;
};

/// Keeps every batch that is pushed. Receipts are kept with the batches, and so stay unresolved,
/// unless the test says what is to become of them. Threads: `push`, `items`, `wait_for` and
/// `settle` from any; `batches` only while nobody pushes.
template <class T>
class Recorder final : public Downstream {
 public:
  void push(BatchBase& base) override {
    Batch<T> batch = std::move(static_cast<Batch<T>&>(base));
    Receipt receipt;
    Outcome outcome = Outcome::done;
    {
      const std::lock_guard lock(mutex_);
      faults();
      if (!batch.items.empty() && fail_next_ > 0) {
        --fail_next_;
        receipt = std::move(batch.receipt);
        outcome = Outcome::failed;
      } else if (acknowledges_) {
        receipt = std::move(batch.receipt);
      }
      count_ += batch.items.size();
      batches.push_back(std::move(batch));
    }
    changed_.notify_all();
    receipt.resolve(outcome);  // may call into the stage
  }

  [[nodiscard]] std::vector<T> items() const { return items_from(0); }
  /// Those of the batches from number `first` on.
  [[nodiscard]] std::vector<T> items_from(std::size_t first) const {
    const std::lock_guard lock(mutex_);
    std::vector<T> all;
    for (std::size_t i = first; i < batches.size(); ++i) {
      all.insert(all.end(), batches[i].items.begin(), batches[i].items.end());
    }
    return all;
  }
  /// True as soon as so many items have come; false if that does not happen within `patience`.
  [[nodiscard]] bool wait_for(std::size_t items,
                              std::chrono::seconds patience = std::chrono::seconds(30)) const {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, patience, [&] { return count_ >= items; });
  }

  /// From now on a receipt is resolved as done when its batch comes.
  void acknowledge(bool on = true) {
    const std::lock_guard lock(mutex_);
    acknowledges_ = on;
  }
  /// The receipts of the next so many batches with items fail when they come.
  void fail_next(std::size_t count) {
    const std::lock_guard lock(mutex_);
    fail_next_ = count;
  }
  /// Resolves all receipts that are kept.
  void settle(Outcome outcome = Outcome::done) {
    std::vector<Receipt> kept;
    {
      const std::lock_guard lock(mutex_);
      for (Batch<T>& batch : batches) kept.push_back(std::move(batch.receipt));
    }
    for (Receipt& receipt : kept) receipt.resolve(outcome);
  }

  std::deque<Batch<T>> batches;
  Faults faults;  ///< called for every push, before anything is kept

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::size_t count_ = 0;
  std::size_t fail_next_ = 0;
  bool acknowledges_ = false;
};

/// A receipt and what became of it.
class WatchedReceipt {
 public:
  [[nodiscard]] Receipt make() {
    ++*made_;
    return Receipt::make([done = done_, failed = failed_](Outcome outcome) noexcept {
      ++*(outcome == Outcome::done ? done : failed);
    });
  }
  [[nodiscard]] int done() const { return *done_; }
  [[nodiscard]] int failed() const { return *failed_; }
  [[nodiscard]] int pending() const { return *made_ - *done_ - *failed_; }

 private:
  using Count = std::shared_ptr<std::atomic<int>>;
  Count made_ = std::make_shared<std::atomic<int>>(0);
  Count done_ = std::make_shared<std::atomic<int>>(0);
  Count failed_ = std::make_shared<std::atomic<int>>(0);
};

}  // namespace millrace::testing
