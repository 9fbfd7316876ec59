#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "millrace/completion.h"
#include "millrace/plugin.h"
#include "millrace/testing/configured.h"
#include "millrace/testing/context.h"
#include "millrace/testing/recorder.h"

/// What Driven (driven.h) is made of: a stage that is open, and the way in and out of it.

namespace millrace::testing {

/// The stage did what its contract (stage.h) forbids.
class ContractBroken : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

namespace detail {

/// A stage with its context: opened when it is made, closed when it goes.
template <class S>
class DrivenStage {
 public:
  /// With a context of its own; `arguments` are the stage's.
  template <class... Arguments>
  requires std::constructible_from<S, Arguments...>
  explicit DrivenStage(Arguments&&... arguments)
      : own_(std::make_unique<TestContext>()),
        context(*own_),
        stage_(std::make_unique<S>(std::forward<Arguments>(arguments)...)) {
    open();
  }
  /// With the test's context, which outlives it.
  template <class... Arguments>
  requires std::constructible_from<S, Arguments...>
  explicit DrivenStage(TestContext& with, Arguments&&... arguments)
      : context(with), stage_(std::make_unique<S>(std::forward<Arguments>(arguments)...)) {
    open();
  }
  /// Made as the host makes it.
  explicit DrivenStage(const Configured& from)
      : own_(std::make_unique<TestContext>()), context(*own_), stage_(make(from)) {
    open();
  }
  DrivenStage(TestContext& with, const Configured& from) : context(with), stage_(make(from)) {
    open();
  }
  DrivenStage(const DrivenStage&) = delete;
  DrivenStage& operator=(const DrivenStage&) = delete;
  ~DrivenStage() { close(); }

  S* operator->() { return stage_.get(); }
  void close() noexcept {
    if (std::exchange(opened_, false)) stage_->close();
  }

 private:
  std::unique_ptr<TestContext> own_;

 public:
  TestContext& context;

 protected:
  /// The host's side of the stage.
  [[nodiscard]] Stage& stage() {
    if (!opened_) throw std::logic_error("the stage has been closed");
    return *stage_;
  }

 private:
  void open() {
    stage_->open(context);
    opened_ = true;
  }
  static std::unique_ptr<S> make(const Configured& from) {
    const bool gives_out = from.descriptor->create_output && !requires { typename S::input_type; };
    auto made =
        (gives_out ? from.descriptor->create_output : from.descriptor->create)(from.options.get());
    auto* stage = dynamic_cast<S*>(made.get());
    if (stage == nullptr) {
      throw std::invalid_argument("'" + from.descriptor->name + "' is made of another class");
    }
    (void)made.release();
    return std::unique_ptr<S>(stage);
  }

  std::unique_ptr<S> stage_;
  bool opened_ = false;
};

/// Completes what is pushed as the host does, and sees to it that a transform's time only falls
/// when that of its input did.
class Emitter final : public Downstream {
 public:
  explicit Emitter(Downstream& next) : next_(next) {}
  void begin(const BatchBase* input) {
    completion_.begin(input);
    if (input == nullptr || input->watermark == kNoTime) return;
    if (input->watermark < given_) watermark_ = kNoTime;
    given_ = input->watermark;
  }
  [[nodiscard]] std::size_t pushed() const { return completion_.pushed(); }
  void push(BatchBase& batch) override {
    completion_.complete(batch);
    if (batch.watermark != kNoTime) {
      if (given_ != kNoTime && batch.watermark < watermark_) {
        throw ContractBroken("the stage pushed a batch whose watermark is before an earlier one's");
      }
      watermark_ = batch.watermark;
    }
    next_.push(batch);
  }

 private:
  Downstream& next_;
  millrace::detail::Completion completion_;
  Timestamp given_ = kNoTime;  ///< the input's; a source has none
  Timestamp watermark_ = kNoTime;
};

/// Nothing comes out of a sink.
class Nowhere final : public Downstream {
 public:
  void push(BatchBase& /*batch*/) override {}
};

/// The side of a stage that takes batches.
template <class S>
class DrivenReader : public DrivenStage<S> {
  using In = typename S::input_type;

 public:
  using DrivenStage<S>::DrivenStage;

  WatchedReceipt receipts;  ///< those of the batches that the test gave without one

 protected:
  void give(Batch<In> batch, Emitter& out) {
    if (!batch.receipt) batch.receipt = receipts.make();
    hand(std::move(batch), out);
  }
  void tick(Timestamp watermark, Emitter& out) {
    Batch<In> batch;
    batch.watermark = watermark;
    hand(std::move(batch), out);
  }
  void call_again(Emitter& out) {
    if (!batch_) throw std::logic_error("there is no batch to be tried again");
    if (!rejected_.empty()) {
      const BoxedBatch taken = batch_->type().extract(*batch_, std::exchange(rejected_, {}));
      if (batch_->items.empty()) {
        batch_->receipt.done();
        batch_.reset();
        return;
      }
    }
    call(out);
  }

 private:
  void hand(Batch<In> batch, Emitter& out) {
    if (batch.watermark != kNoTime) watermark_ = batch.watermark;
    batch.watermark = watermark_;
    batch_.emplace(std::move(batch));
    rejected_.clear();
    call(out);
  }
  void call(Emitter& out) {
    const std::size_t items = batch_->items.size();
    const bool receipt = static_cast<bool>(batch_->receipt);
    out.begin(&*batch_);
    try {
      this->stage().process_erased(*batch_, out);
    } catch (const Transient&) {
      check_untouched(items, receipt, out);
      throw;
    } catch (const Rejected& error) {
      check_untouched(items, receipt, out);
      rejected_ = error.items();
      if (rejected_.empty()) {
        rejected_.resize(items);
        std::iota(rejected_.begin(), rejected_.end(), std::size_t{0});
      }
      if (items == 0 || rejected_.back() >= items ||
          std::ranges::adjacent_find(rejected_, std::greater_equal<>()) != rejected_.end()) {
        throw ContractBroken("the stage rejected items that it was not given, or not in order");
      }
      throw;
    }
    batch_->receipt.done();
    batch_.reset();  // with its storage: what is given on must hold what it needs of it
  }
  void check_untouched(std::size_t items, bool receipt, const Emitter& out) const {
    if (batch_->items.size() != items || static_cast<bool>(batch_->receipt) != receipt) {
      throw ContractBroken("the stage refused a batch and has changed it");
    }
    if (out.pushed() != 0) throw ContractBroken("the stage refused a batch after it had pushed");
  }

  std::optional<Batch<In>> batch_;  // until a call has taken it
  std::vector<std::size_t> rejected_;
  Timestamp watermark_ = kNoTime;
};

template <class S>
concept Reads = requires {
  typename S::input_type;
};
template <class S>
concept Writes = requires {
  typename S::output_type;
};

}  // namespace detail

}  // namespace millrace::testing
