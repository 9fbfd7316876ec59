#pragma once

#include <algorithm>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "millrace/plugin.h"
#include "millrace/testing/configured.h"
#include "millrace/testing/context.h"
#include "millrace/testing/recorder.h"

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

/// Completes what is pushed as the host does, and sees to it that time never falls.
class Emitter final : public Downstream {
 public:
  explicit Emitter(Downstream& next) : next_(next) {}
  /// What is pushed from now on comes from `input` (null: from nothing in particular).
  void begin(const BatchBase* input) {
    input_ = input;
    pushed_ = 0;
  }
  [[nodiscard]] std::size_t pushed() const { return pushed_; }
  void push(BatchBase& batch) override {
    ++pushed_;
    if (input_ != nullptr) {
      if (!batch.receipt) batch.receipt = input_->receipt.fork();
      if (batch.watermark == kNoTime) batch.watermark = input_->watermark;
    }
    if (batch.watermark != kNoTime) {
      if (batch.watermark < watermark_) {
        throw ContractBroken("the stage pushed a batch whose watermark is before an earlier one's");
      }
      watermark_ = batch.watermark;
    }
    next_.push(batch);
  }

 private:
  Downstream& next_;
  const BatchBase* input_ = nullptr;
  std::size_t pushed_ = 0;
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
    watermark_ = std::max(watermark_, batch.watermark);
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

/// Drives one stage, without a host, as the host would: `open` when it is made, then what the test
/// calls, `close` when it goes. Exceptions of the stage go to the test. Beyond what a test asserts
/// it watches the contract, see ContractBroken; batches that were given are destroyed after the
/// call, so that a sanitizer finds views which outlive their storage. Threads: the test's.
template <class S>
class Driven;

/// A transform.
template <class S>
requires detail::Reads<S> && detail::Writes<S>
class Driven<S> : public detail::DrivenReader<S> {
  using In = typename S::input_type;
  using Out = typename S::output_type;

 public:
  using detail::DrivenReader<S>::DrivenReader;

  /// What the stage gives on during the call. Its receipts are kept in `out`; that of the batch is
  /// resolved when all of them are and nothing is kept back, see `receipts`.
  std::vector<Out> process(Batch<In> batch) {
    return pushed([&] { this->give(std::move(batch), emitter_); });
  }
  std::vector<Out> process(std::vector<In> items) { return process(Batch<In>(std::move(items))); }
  /// No earlier packet will come.
  std::vector<Out> advance(Timestamp watermark) {
    return pushed([&] { this->tick(watermark, emitter_); });
  }
  /// Calls again with the batch that the last call refused, as the host does after Transient; after
  /// Rejected without the items that were named.
  std::vector<Out> retry() {
    return pushed([&] { this->call_again(emitter_); });
  }
  /// The input has ended.
  std::vector<Out> flush() {
    return pushed([&] {
      emitter_.begin(nullptr);
      this->stage().flush_erased(emitter_);
    });
  }

  Recorder<Out> out;

 private:
  template <class Call>
  std::vector<Out> pushed(Call call) {
    const std::size_t before = out.batches.size();
    call();
    return out.items_from(before);
  }

  detail::Emitter emitter_{out};
};

/// A sink.
template <class S>
requires detail::Reads<S> &&(!detail::Writes<S>)class Driven<S> : public detail::DrivenReader<S> {
  using In = typename S::input_type;

 public:
  using detail::DrivenReader<S>::DrivenReader;

  /// The batch's receipt is resolved afterwards unless the sink has taken it, see `receipts`.
  void write(Batch<In> batch) { this->give(std::move(batch), emitter_); }
  void write(std::vector<In> items) { write(Batch<In>(std::move(items))); }
  /// Time has moved.
  void advance(Timestamp watermark = kNoTime) { this->tick(watermark, emitter_); }
  /// Calls again with the batch that the last call refused, as the host does after Transient; after
  /// Rejected without the items that were named.
  void retry() { this->call_again(emitter_); }
  /// The input has ended.
  void flush() { this->stage().flush_erased(nowhere_); }

 private:
  detail::Nowhere nowhere_;
  detail::Emitter emitter_{nowhere_};
};

/// A source.
template <class S>
requires detail::Writes<S> &&(!detail::Reads<S>)class Driven<S> : public detail::DrivenStage<S> {
  using Out = typename S::output_type;

 public:
  using detail::DrivenStage<S>::DrivenStage;
  /// Asks it to end and waits. What `run` threw and nobody heard of ends the test.
  ~Driven() { stop(); }

  /// Runs it to its end, or until so many items have come and it has been asked to end. Gives what
  /// came during the call.
  std::vector<Out> run(std::size_t enough = static_cast<std::size_t>(-1)) {
    const std::size_t before = out.batches.size();
    std::stop_source stop;
    Until until(out, enough, stop);
    if (enough == 0) stop.request_stop();
    this->stage().run_erased(until, stop.get_token());
    return out.items_from(before);
  }

  /// Runs it in a thread of its own; `out.wait_for(items)` waits for what comes.
  void start() {
    Stage& stage = this->stage();
    thread_ = std::jthread([this, &stage](const std::stop_token& token) {
      try {
        detail::Emitter emitter(out);
        stage.run_erased(emitter, token);
      } catch (...) {
        error_ = std::current_exception();
      }
      ended_ = true;
    });
  }
  [[nodiscard]] bool ended() const { return ended_; }
  /// Waits until it ends by itself; throws what `run` threw.
  void join() {
    if (thread_.joinable()) thread_.join();
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }
  void stop() {
    thread_.request_stop();
    join();
  }

  Recorder<Out> out;

 private:
  /// Asks for the end when there is enough.
  class Until final : public Downstream {
   public:
    Until(Downstream& next, std::size_t enough, std::stop_source& stop)
        : emitter_(next), left_(enough), stop_(stop) {}
    void push(BatchBase& batch) override {
      const std::size_t items = batch.type().count(batch);
      emitter_.push(batch);
      left_ -= std::min(left_, items);
      if (left_ == 0) stop_.request_stop();
    }

   private:
    detail::Emitter emitter_;
    std::size_t left_;
    std::stop_source& stop_;
  };

  std::atomic<bool> ended_{false};
  std::exception_ptr error_;
  std::jthread thread_;
};

/// Both halves of a queue, which meet in `Context::shared` as in one process; sources are opened
/// last, as the host does.
template <class In, class Out>
class DrivenQueue {
 public:
  /// Options, or what `configured` returned.
  template <class Options>
  explicit DrivenQueue(const Options& options)
      : in(make<In>(in_context, options)), out(make<Out>(meet(), options)) {}

  TestContext in_context{"queue.in"};
  TestContext out_context{"queue.out"};
  Driven<In> in;
  Driven<Out> out;

 private:
  TestContext& meet() {
    out_context.shared_objects = in_context.shared_objects;
    return out_context;
  }
  template <class Half, class Options>
  static Driven<Half> make(TestContext& context, const Options& options) {
    if constexpr (std::constructible_from<Driven<Half>, TestContext&, const Options&>) {
      return Driven<Half>(context, options);
    } else {
      return Driven<Half>(context);
    }
  }
};

}  // namespace millrace::testing
