#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace millrace {

enum class Outcome : std::uint8_t { done, failed };

/// The acknowledgement that travels with a batch back to whoever made it.
///
/// Failure is the default: a receipt that is destroyed unresolved counts as failed. Copies are made
/// on purpose only (`fork`); the maker hears once, when the last share is resolved: `done` if every
/// share was done. An empty receipt has no maker and may be resolved or dropped freely.
///
/// Threads: a Receipt object belongs to one thread at a time; shares may be resolved on any thread,
/// and the maker's function runs on the thread that resolves the last one. Cost: one atomic
/// operation for each share that ends.
class Receipt {
 public:
  using Deadline = std::optional<std::chrono::steady_clock::time_point>;

  Receipt() noexcept = default;
  Receipt(Receipt&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  Receipt& operator=(Receipt&& other) noexcept {
    if (this != &other) {
      fail();
      state_ = std::exchange(other.state_, nullptr);
    }
    return *this;
  }
  Receipt(const Receipt&) = delete;
  Receipt& operator=(const Receipt&) = delete;
  ~Receipt() { fail(); }

  /// `on_resolved(Outcome)` must not throw. `deadline`: after it the host stops retrying and lets
  /// the receipt fail.
  template <class F>
  static Receipt make(F on_resolved, Deadline deadline = {}) {
    return Receipt(new Maker<F>(std::move(on_resolved), deadline));
  }

  /// One receipt that answers for all of `parts`, with the earliest of their deadlines.
  static Receipt join(std::vector<Receipt> parts);

  /// One more share; the maker hears after both are resolved.
  [[nodiscard]] Receipt fork() const noexcept {
    if (state_ != nullptr) state_->shares.fetch_add(1, std::memory_order_relaxed);
    return Receipt(state_);
  }

  void done() noexcept { resolve(Outcome::done); }
  void fail() noexcept { resolve(Outcome::failed); }
  void resolve(Outcome outcome) noexcept {
    if (state_ != nullptr) std::exchange(state_, nullptr)->release(outcome);
  }

  explicit operator bool() const noexcept { return state_ != nullptr; }
  [[nodiscard]] Deadline deadline() const noexcept {
    return state_ != nullptr ? state_->deadline : std::nullopt;
  }

 private:
  struct State {
    explicit State(Deadline when) : deadline(when) {}
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    virtual ~State() = default;
    virtual void resolved(Outcome outcome) noexcept = 0;

    void release(Outcome outcome) noexcept {
      if (outcome == Outcome::failed) failed.store(true, std::memory_order_relaxed);
      if (shares.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
      const std::unique_ptr<State> self(this);
      resolved(failed.load(std::memory_order_relaxed) ? Outcome::failed : Outcome::done);
    }

    std::atomic<std::uint32_t> shares{1};
    std::atomic<bool> failed{false};
    Deadline deadline;
  };

  template <class F>
  struct Maker final : State {
    Maker(F f, Deadline when) : State(when), function(std::move(f)) {}
    void resolved(Outcome outcome) noexcept override { function(outcome); }
    F function;
  };

  explicit Receipt(State* state) noexcept : state_(state) {}

  State* state_ = nullptr;
};

inline Receipt Receipt::join(std::vector<Receipt> parts) {
  std::erase_if(parts, [](const Receipt& part) { return !part; });
  if (parts.empty()) return {};
  if (parts.size() == 1) return std::move(parts.front());
  Deadline earliest;
  for (const Receipt& part : parts) {
    const Deadline deadline = part.deadline();
    if (deadline && (!earliest || *deadline < *earliest)) earliest = deadline;
  }
  return make(
      [parts = std::move(parts)](Outcome outcome) mutable noexcept {
        for (Receipt& part : parts) part.resolve(outcome);
      },
      earliest);
}

/// For a source that must commit in order (an offset, a tag): gives out receipts for positions and
/// calls `commit(position)` with the highest position below which every receipt is done.
///
/// A failed receipt stops the commits for good: nothing at or after it is ever committed, so a
/// restart reads it again. Threads: `issue` and `wait_for_room` from the source's thread; `commit`
/// runs on the thread that resolves, never on two at once, and must not throw.
class ReceiptWindow {
 public:
  using Commit = std::function<void(std::uint64_t position)>;

  /// At most `limit` receipts are unresolved at a time (see wait_for_room); 0: no limit.
  ReceiptWindow(std::size_t limit, Commit commit);

  /// `position` must not fall from call to call.
  [[nodiscard]] Receipt issue(std::uint64_t position, Receipt::Deadline deadline = {});

  /// True as soon as one more may be issued; false if that does not happen within `patience`.
  bool wait_for_room(std::chrono::milliseconds patience);
  /// True once every receipt given out is resolved.
  bool wait_until_empty(std::chrono::milliseconds patience);
  [[nodiscard]] bool failed() const;
  [[nodiscard]] std::size_t unresolved() const;

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
};

/// For a stage that keeps items back and gives them on later in other groups (a session table).
///
/// Every input batch's receipt is put in with `add`; what the stage makes of it later is declared
/// with `hold(number)` and comes out through `release(numbers)`, whose receipt goes with the output
/// batch. An input's receipt is resolved when no hold on it or on an earlier input is left, so a
/// hold on the batch that began a session covers every later packet of that session too. The price
/// is patience, not safety; the gain is that no packet costs an atomic operation.
///
/// Threads: add, hold and release from the stage's thread; the receipts that release returns may be
/// resolved on any thread.
class ReceiptLedger {
 public:
  ReceiptLedger();

  /// Takes over `receipt` (it may be empty) and returns its number: 0, 1, 2, ... It stays open at
  /// least until `settle` or the next `add`.
  std::uint64_t add(Receipt receipt);
  /// The input added last has all its holds: what nothing holds any more is resolved.
  void settle();
  /// So many more things must be delivered before input `number` is.
  void hold(std::uint64_t number, std::uint64_t count = 1);
  /// Ends holds without a delivery: of things dropped on purpose, or that were held to be safe.
  void forget(std::uint64_t number, std::uint64_t count = 1);
  /// `numbers`: one entry for each hold whose item is in the batch that the receipt will go with.
  [[nodiscard]] Receipt release(std::vector<std::uint64_t> numbers);
  /// Inputs whose receipts are not resolved yet.
  [[nodiscard]] std::size_t open() const;

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
};

}  // namespace millrace
