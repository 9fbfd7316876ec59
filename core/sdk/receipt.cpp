#include "millrace/receipt.h"

#include <algorithm>
#include <condition_variable>

namespace millrace {

struct ReceiptWindow::Shared {
  struct Entry {
    std::uint64_t position;
    bool done = false;
  };

  explicit Shared(std::size_t maximum, Commit function)
      : limit(maximum), commit(std::move(function)) {}

  void resolve(std::uint64_t number, Outcome outcome) noexcept {
    // Held while committing: commits come one at a time and in order.
    const std::lock_guard lock(mutex);
    --unresolved;
    if (outcome == Outcome::failed) failed = true;
    if (!failed) {
      entries[number - first].done = true;
      std::optional<std::uint64_t> highest;
      while (!entries.empty() && entries.front().done) {
        highest = entries.front().position;
        entries.pop_front();
        ++first;
      }
      if (highest && commit) commit(*highest);
    }
    changed.notify_all();
  }

  const std::size_t limit;
  const Commit commit;
  mutable std::mutex mutex;
  std::condition_variable changed;
  std::deque<Entry> entries;
  std::uint64_t first = 0;  // number of entries.front()
  std::size_t unresolved = 0;
  bool failed = false;
};

ReceiptWindow::ReceiptWindow(std::size_t limit, Commit commit)
    : shared_(std::make_shared<Shared>(limit, std::move(commit))) {}

Receipt ReceiptWindow::issue(std::uint64_t position, Receipt::Deadline deadline) {
  std::uint64_t number = 0;
  {
    const std::lock_guard lock(shared_->mutex);
    number = shared_->first + shared_->entries.size();
    shared_->entries.push_back({position});
    ++shared_->unresolved;
  }
  return Receipt::make(
      [shared = shared_, number](Outcome outcome) noexcept { shared->resolve(number, outcome); },
      deadline);
}

bool ReceiptWindow::wait_for_room(std::chrono::milliseconds patience) {
  std::unique_lock lock(shared_->mutex);
  return shared_->changed.wait_for(lock, patience, [this] {
    return shared_->limit == 0 || shared_->unresolved < shared_->limit;
  });
}

bool ReceiptWindow::wait_until_empty(std::chrono::milliseconds patience) {
  std::unique_lock lock(shared_->mutex);
  return shared_->changed.wait_for(lock, patience, [this] { return shared_->unresolved == 0; });
}

bool ReceiptWindow::failed() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->failed;
}

std::size_t ReceiptWindow::unresolved() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->unresolved;
}

struct ReceiptLedger::Shared {
  struct Input {
    Receipt receipt;
    std::uint64_t holds = 0;
    bool failed = false;
  };

  /// Takes out what nothing holds any more. A failure covers everything after it as well: those
  /// inputs may have added to the session that failed.
  std::vector<std::pair<Receipt, Outcome>> settled() {
    std::vector<std::pair<Receipt, Outcome>> out;
    while (!inputs.empty() && inputs.front().holds == 0 && (inputs.size() > 1 || complete)) {
      failed = failed || inputs.front().failed;
      out.emplace_back(std::move(inputs.front().receipt), failed ? Outcome::failed : Outcome::done);
      inputs.pop_front();
      ++first;
    }
    return out;
  }

  Input& at(std::uint64_t number) { return inputs[number - first]; }

  std::mutex mutex;
  std::deque<Input> inputs;
  std::uint64_t first = 0;
  bool complete = true;  // the last input has all its holds
  bool failed = false;
};

namespace {
void resolve_all(std::vector<std::pair<Receipt, Outcome>>& settled) {
  for (auto& [receipt, outcome] : settled) receipt.resolve(outcome);
}
}  // namespace

ReceiptLedger::ReceiptLedger() : shared_(std::make_shared<Shared>()) {}

std::uint64_t ReceiptLedger::add(Receipt receipt) {
  std::vector<std::pair<Receipt, Outcome>> settled;
  std::uint64_t number = 0;
  {
    const std::lock_guard lock(shared_->mutex);
    number = shared_->first + shared_->inputs.size();
    shared_->inputs.push_back({std::move(receipt)});
    shared_->complete = false;
    settled = shared_->settled();
  }
  resolve_all(settled);
  return number;
}

void ReceiptLedger::settle() {
  std::vector<std::pair<Receipt, Outcome>> settled;
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->complete = true;
    settled = shared_->settled();
  }
  resolve_all(settled);
}

void ReceiptLedger::hold(std::uint64_t number, std::uint64_t count) {
  const std::lock_guard lock(shared_->mutex);
  shared_->at(number).holds += count;
}

void ReceiptLedger::forget(std::uint64_t number, std::uint64_t count) {
  std::vector<std::pair<Receipt, Outcome>> settled;
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->at(number).holds -= count;
    settled = shared_->settled();
  }
  resolve_all(settled);
}

Receipt ReceiptLedger::release(std::vector<std::uint64_t> numbers) {
  return Receipt::make([shared = shared_, numbers = std::move(numbers)](Outcome outcome) noexcept {
    std::vector<std::pair<Receipt, Outcome>> settled;
    {
      const std::lock_guard lock(shared->mutex);
      for (const std::uint64_t number : numbers) {
        Shared::Input& input = shared->at(number);
        --input.holds;
        if (outcome == Outcome::failed) input.failed = true;
      }
      settled = shared->settled();
    }
    resolve_all(settled);
  });
}

std::size_t ReceiptLedger::open() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->inputs.size();
}

}  // namespace millrace
