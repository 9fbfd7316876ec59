#pragma once

#include <concepts>
#include <cstddef>
#include <memory>
#include <stop_token>
#include <type_traits>
#include <utility>

#include "millrace/batch.h"
#include "millrace/context.h"
#include "millrace/error.h"

namespace millrace {

/// Where a stage's batches go; the host implements it.
class Downstream {
 public:
  Downstream() = default;
  Downstream(const Downstream&) = delete;
  Downstream& operator=(const Downstream&) = delete;
  virtual ~Downstream() = default;
  /// Takes the batch's content. Blocks while a bounded queue behind it is full. Throws nothing that
  /// comes from later stages.
  virtual void push(BatchBase& batch) = 0;
};

/// The typed face of Downstream that a stage is given for the time of one call (a source: of
/// `run`).
template <class T>
class Output {
 public:
  explicit Output(Downstream& downstream) noexcept : downstream_(&downstream) {}
  /// Takes the batch's content, whether or not somebody downstream does: what is left of it is
  /// given up, and the receipt with it.
  void push(Batch<T>&& batch) {
    downstream_->push(batch);
    batch.items.clear();
    batch.storage.reset();
    batch.receipt.fail();
  }

 private:
  Downstream* downstream_;
};

/// How many items a stage wants to be given at once, see Stage::coalesce.
struct Coalesce {
  std::size_t items = 0;
  Duration max_wait{};
};

/// The part of a stage that does not depend on its item types. Use Source, Transform or Sink.
///
/// Life: constructed with its options, `open`, calls from one thread at a time, `close`, destroyed.
/// `workers = n` makes n instances, each with its own thread. Any exception but Transient, Rejected
/// and (from `open`) ConfigError ends the pipeline: what can be drained is, exit code 1.
class Stage {
 public:
  Stage() = default;
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;
  virtual ~Stage() = default;

  /// Acquires what the stage needs. `context` stays valid until after `close`.
  virtual void open(Context& /*context*/) {}
  /// Called once if `open` returned, also after an error.
  virtual void close() noexcept {}
  /// Asked after `open`. With items > 0 the stage gets a queue of its own, and batches that wait in
  /// it are joined until `items` are together or `max_wait` has passed since the first of them.
  /// Batches are never cut: one call may bring more than `items`.
  [[nodiscard]] virtual Coalesce coalesce() const { return {}; }

  // The host's side of the templates below.
  virtual void run_erased(Downstream& /*out*/, const std::stop_token& /*stop*/) {}
  virtual void process_erased(BatchBase& /*in*/, Downstream& /*out*/) {}
  virtual void flush_erased(Downstream& /*out*/) {}
};

/// Makes batches. Batches it pushes have a watermark; one without a receipt is only accounted for.
template <class Out>
class Source : public Stage {
 public:
  using output_type = Out;

  /// Returns when the input has ended or soon (within about 100 ms) after `stop` is requested. A
  /// live source pushes an empty batch with a new watermark at least every 100 ms when nothing
  /// comes, so that time moves on downstream.
  virtual void run(Output<Out>& out, std::stop_token stop) = 0;

  void run_erased(Downstream& out, const std::stop_token& stop) final {
    Output<Out> typed(out);
    run(typed, stop);
  }
};

/// Takes batches of one type and makes batches of another (or the same).
template <class In, class Out>
class Transform : public Stage {
 public:
  using input_type = In;
  using output_type = Out;

  /// `in` may be empty: then only time has moved (`in.watermark`). What is pushed during the call
  /// shares the receipt of `in` unless it brings one, and `in` is acknowledged when all of that is.
  /// A stage that keeps items back takes `in.receipt` out (see ReceiptLedger). Things that can fail
  /// come before the first push: a call that throws Transient or Rejected is made again.
  virtual void process(Batch<In>& in, Output<Out>& out) = 0;
  /// The input has ended: give on what was kept back.
  virtual void flush(Output<Out>& /*out*/) {}

  void process_erased(BatchBase& in, Downstream& out) final {
    Output<Out> typed(out);
    process(static_cast<Batch<In>&>(in), typed);
  }
  void flush_erased(Downstream& out) final {
    Output<Out> typed(out);
    flush(typed);
  }
};

/// Takes batches out of the pipeline.
template <class In>
class Sink : public Stage {
 public:
  using input_type = In;

  /// Returning means the items are safe, and the host resolves the receipt. A sink that makes them
  /// safe later (one transaction for many batches) takes `in.receipt` out and resolves it then.
  /// `in` may be empty: time has moved, a good moment to commit what has waited.
  virtual void write(Batch<In>& in) = 0;
  /// The input has ended: make everything safe.
  virtual void flush() {}

  void process_erased(BatchBase& in, Downstream& /*out*/) final {
    write(static_cast<Batch<In>&>(in));
  }
  void flush_erased(Downstream& /*out*/) final { flush(); }
};

}  // namespace millrace
