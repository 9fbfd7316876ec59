#pragma once

#include <algorithm>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <exception>
#include <stop_token>
#include <thread>
#include <utility>
#include <vector>

#include "millrace/plugin.h"
#include "millrace/testing/configured.h"
#include "millrace/testing/context.h"
#include "millrace/testing/driven_stage.h"
#include "millrace/testing/recorder.h"

namespace millrace::testing {

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
