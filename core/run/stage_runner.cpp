#include "run/stage_runner.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <thread>

#include <fmt/chrono.h>
#include <fmt/format.h>

#include "plugin/thrown.h"
#include "run/stage_calls.h"

namespace millrace::host {

StageRunner::StageRunner(const Plan::Stage& plan, RunState& state) : plan_(plan), state_(state) {}

StageRunner::~StageRunner() = default;

void StageRunner::open() {
  try {
    for (std::uint32_t i = 0; i < plan_.host.workers; ++i) {
      instances_.push_back(std::make_unique<Instance>(*this));
    }
  } catch (const ConfigError&) {
    throw;
  } catch (...) {
    throw ConfigError({}, fmt::format("stage '{}' ({}) cannot be made: {}", plan_.name, plan_.use,
                                      thrown_text()));
  }
  if (plan_.host.on_reject == OnReject::file) {
    try {
      dead_letters_ = std::make_unique<DeadLetters>(plan_.host.reject_file);
    } catch (const std::system_error& error) {
      throw ConfigError("on_reject", fmt::format("the file for dead letters: {}", error.what()));
    }
  }
  for (const auto& instance : instances_) {
    instance->stage->open(instance->context);
    instance->opened = true;
  }
  coalesce_ = instances_.front()->stage->coalesce();
}

void StageRunner::close() noexcept {
  for (const auto& instance : instances_) {
    if (std::exchange(instance->opened, false)) instance->stage->close();
  }
}

std::string StageRunner::at_work() const {
  if (const std::string retrying = retries_.text(); !retrying.empty()) {
    return fmt::format("{} ({})", plan_.name, retrying);
  }
  return state_.sampler.works_on(account_) ? plan_.name : std::string();
}

bool StageRunner::leads_to_failure() const {
  if (!plan_.host.required && plan_.kind != StageKind::source) return false;
  return failed_ || std::ranges::any_of(readers_, [](const Reader& reader) {
           return reader.stage->leads_to_failure();
         });
}

void StageRunner::add_troubles(Health& health) const {
  const auto add = [&](Trouble trouble) {
    trouble.stage = plan_.name;
    trouble.tolerated = !plan_.host.required;
    health.add(std::move(trouble), state_.blocked);
  };
  if (failed_) {
    const std::lock_guard lock(failure_mutex_);
    add({.what = failure_.what, .since = failure_.since, .at_once = true});
  } else if (const auto outage = retries_.outage()) {
    add({.what = outage->why, .since = outage->since});
  }
  for (const Conditions::Failing& failing : account_.conditions.failing()) {
    add({.what = fmt::format("{}: {}", failing.name, failing.why),
         .since = failing.since,
         .at_once = failing.at_once});
  }
}

void StageRunner::make_queue(bool upstream_has_workers) {
  if (plan_.kind == StageKind::source) return;
  const bool needed = plan_.host.workers > 1 || plan_.host.queue || plan_.from.size() > 1 ||
                      !plan_.host.required || coalesce_.items > 0 || upstream_has_workers;
  if (needed) {
    queue_ =
        std::make_unique<BatchQueue>(plan_.host.queue.value_or(QueueOptions{}), plan_.from.size(),
                                     plan_.host.queue ? 0 : coalesce_.items);
    workers_left_ = instances_.size();
  }
  // Otherwise everything is counted by the one thread that calls the one instance.
  if (queue_) account_.in.share();
  if (plan_.descriptor->counts_handled) account_.handled.share();
  if (instances_.size() > 1) {
    for (Tally* tally : {&account_.out, &account_.handled, &account_.batches}) {
      tally->share();
    }
  }
}

void StageRunner::attach_to(StageRunner& upstream, const InputAdapter* adapter) {
  upstream.readers_.push_back({this, adapter, inputs_++});
  const bool direct = adapter == nullptr && !queue_;  // then it is required, too
  upstream.fused_ = direct && upstream.readers_.size() == 1 ? this : nullptr;
}

// --- Giving on
// ------------------------------------------------------------------------------------

void StageRunner::send(BatchBase& batch, Timekeeper& keeper) {
  const std::size_t items = batch.type().count(batch);
  account_.out.add(items);
  account_.batches.add();
  if (fused_ != nullptr) return fused_->accept_fused(batch, items, keeper);
  for (std::size_t i = 0; i < readers_.size(); ++i) {
    const Reader& reader = readers_[i];
    if (i + 1 < readers_.size()) {
      const BoxedBatch copy = batch.type().clone(batch);
      if (reader.stage->plan_.host.required) copy->receipt = batch.receipt.fork();
      reader.stage->accept(*copy, items, reader, keeper);
    } else if (reader.stage->plan_.host.required) {
      reader.stage->accept(batch, items, reader, keeper);
    } else {
      Receipt receipt = std::move(batch.receipt);
      reader.stage->accept(batch, items, reader, keeper);
      receipt.done();
    }
  }
}

void StageRunner::accept(BatchBase& batch, std::size_t items, const Reader& as,
                         Timekeeper& keeper) {
  if (as.adapter != nullptr) {
    const BoxedBatch converted = convert(batch, items, *as.adapter, keeper);
    if (!converted) return;
    return accept(*converted, converted->type().count(*converted), {as.stage, nullptr, as.producer},
                  keeper);
  }
  if (!queue_) return accept_fused(batch, items, keeper);
  account_.in.add(items);
  const OnAccount waiting(keeper, nullptr);
  discard(queue_->push(batch.type().box(std::move(batch)), as.producer),
          failed_ ? "stage-failed" : "queue-full");
}

/// The adapter is this stage's code although the one before it calls: what it throws is this
/// stage's failure. Null: it has thrown, and the batch is accounted for.
BoxedBatch StageRunner::convert(BatchBase& batch, std::size_t items, const InputAdapter& adapter,
                                Timekeeper& keeper) {
  const OnAccount mine(keeper, &account_);
  if (!failed_) {
    try {
      return adapter.convert(batch);
    } catch (...) {
      fail(fmt::format("converting its input: {}", thrown_text()));
    }
  }
  account_.in.add(items);
  lose(batch, items, "stage-failed");
  return nullptr;
}

void StageRunner::discard(const std::vector<BoxedBatch>& batches, std::string_view reason) {
  for (const BoxedBatch& batch : batches) lose(*batch, batch->type().count(*batch), reason);
}

void StageRunner::lose(BatchBase& batch, std::size_t items, std::string_view reason) {
  if (failed_ && plan_.host.required) {
    account_.failed.add(items);
    batch.receipt.fail();
  } else {
    account_.drop(reason, items);
    batch.receipt.done();
  }
}

// --- Calling the stage
// ----------------------------------------------------------------------------

/// What only a call that fails needs stands in call_again: a fused hop is as fast as this is short.
/// Always inline, because processors foresee only so many nested returns (16 to 32), and every
/// fused stage adds its own.
[[gnu::always_inline]] inline void StageRunner::call(Instance& instance, BatchBase& batch,
                                                     std::size_t items, Emitter& out,
                                                     Timekeeper& keeper) {
  const OnAccount mine(keeper, &account_);
  if (failed_) {
    account_.failed.add(items);
    batch.receipt.fail();
    return;
  }
  try {
    attempt(instance, batch, items, out);
  } catch (...) {
    if (!call_again(std::current_exception(), instance, batch, items, out, keeper)) return;
  }
  if (down_) recover(items, false);
  // Time that has moved must not stop at a stage that had nothing to say.
  if (items == 0 && out.pushed() == 0 && !readers_.empty()) {
    const BoxedBatch tick = plan_.descriptor->output->empty();
    tick->watermark = batch.watermark;
    out.push(*tick);
  }
}

void StageRunner::accept_fused(BatchBase& batch, std::size_t items, Timekeeper& keeper) {
  account_.in.add(items);
  Emitter emitter(*this, keeper);
  call(*instances_.front(), batch, items, emitter, keeper);
}

void StageRunner::flush(Instance& instance, Emitter& out, Timekeeper& keeper) {
  const OnAccount mine(keeper, &account_);
  out.begin(nullptr);
  for (Retries::Call repeated(retries_); !failed_;) {
    try {
      instance.stage->flush_erased(out);
      if (repeated.failures() > 0) recover(1, true);
      return;
    } catch (const Transient& error) {
      account_.retried.add();
      if (!pause(error, repeated, {}, keeper)) {
        fail("flushing: " + repeated.gave_up(error.what()));
      }
    } catch (...) {
      fail(thrown_text());
    }
  }
}

// --- Ending
// ---------------------------------------------------------------------------------------

/// All input has come: flush, and tell the readers.
void StageRunner::finish(Timekeeper& keeper) {
  Emitter emitter(*this, keeper);
  if (plan_.kind != StageKind::source) {
    for (const auto& instance : instances_) flush(*instance, emitter, keeper);
  }
  tell_rest();
  for (const Reader& reader : readers_) reader.stage->input_ended(reader.producer, keeper);
}

/// Nothing that was held back stays untold.
void StageRunner::tell_rest() {
  Logger& logger = state_.surroundings.logger;
  if (const auto more = rejected_lines_.take_rest(); more > 0) {
    logger.log(LogLevel::warning, plan_.name, fmt::format("rejected {} more items", more));
  }
  if (const auto more = given_up_lines_.take_rest(); more > 0) {
    logger.log(LogLevel::error, plan_.name, fmt::format("gave up {} more items", more));
  }
}

void StageRunner::input_ended(std::size_t producer, Timekeeper& keeper) {
  if (queue_) {
    queue_->producer_done(producer);
  } else {
    finish(keeper);
  }
}

// --- Threads
// --------------------------------------------------------------------------------------

namespace {

/// Ends the `run` of a source from within its push. No std::exception, so that none takes it for an
/// error.
struct Ended {};

/// Batches of a source that tracks nothing itself still say when they get lost.
class CountingEmitter final : public Downstream {
 public:
  CountingEmitter(Downstream& next, Account& account, std::function<bool()> ended)
      : next_(next), account_(account), ended_(std::move(ended)) {}
  void push(BatchBase& batch) override {
    if (ended_()) throw Ended{};
    // Of a heartbeat nothing can be lost.
    if (!batch.receipt && batch.type().count(batch) > 0) {
      batch.receipt = Receipt::make([&account = account_](Outcome outcome) noexcept {
        if (outcome == Outcome::failed) account.undelivered.add();
      });
    }
    next_.push(batch);
  }

 private:
  Downstream& next_;
  Account& account_;
  const std::function<bool()> ended_;
};

}  // namespace

void StageRunner::run_source() noexcept {
  Timekeeper keeper(state_.sampler, &account_);
  Emitter emitter(*this, keeper);
  // A queue gives out what it holds before it ends. Where that can only fail it comes back, and it
  // would do so for ever.
  CountingEmitter counting(emitter, account_, [this] {
    return plan_.gives_out && state_.stopping && leads_to_failure();
  });
  {
    const OnAccount mine(keeper, &account_);
    try {
      instances_.front()->stage->run_erased(counting, state_.stop.get_token());
    } catch (const Ended&) {
      // What it holds stays in the queue.
    } catch (...) {
      fail(thrown_text());
    }
  }
  if (const auto [done, total] = progress(); state_.stop.stop_requested() && done < total) {
    state_.stopped_early(
        fmt::format("'{}' was stopped after {:.0f} % of its input", plan_.name,
                    100.0 * static_cast<double>(done) / static_cast<double>(total)));
  }
  finish(keeper);
}

void StageRunner::run_worker(std::size_t worker) noexcept {
  constexpr std::chrono::milliseconds kHeartbeat(100);
  Timekeeper keeper(state_.sampler);
  Instance& instance = *instances_[worker];
  const bool ordered = instances_.size() > 1;
  std::vector<BoxedBatch> kept;
  Emitter emitter(*this, keeper, ordered ? &kept : nullptr);
  while (true) {
    BatchQueue::Popped popped = queue_->pop(coalesce_, kHeartbeat);
    if (popped.kind == BatchQueue::Popped::Kind::end) break;
    const std::size_t items = popped.batch ? popped.batch->type().count(*popped.batch) : 0;
    if (popped.kind == BatchQueue::Popped::Kind::idle) {
      if (popped.watermark == kNoTime || failed_) continue;
      const BoxedBatch tick = plan_.descriptor->input->empty();
      tick->watermark = popped.watermark;
      call(instance, *tick, 0, emitter, keeper);
      // With several workers, time is passed on by the batches; a heartbeat might overtake them.
      kept.clear();
    } else {
      call(instance, *popped.batch, items, emitter, keeper);
      if (ordered) deliver_in_order(popped.number, std::exchange(kept, {}), keeper);
    }
  }
  // The last one to leave finds everything delivered and ends the stage.
  if (workers_left_.fetch_sub(1) == 1) finish(keeper);
}

void StageRunner::deliver_in_order(std::uint64_t number, std::vector<BoxedBatch> batches,
                                   Timekeeper& keeper) {
  std::unique_lock lock(order_mutex_);
  // A slow batch must not let the others pile up without bound behind it.
  const std::uint64_t ahead = 4 * instances_.size();
  order_moved_.wait(lock, [&] { return number < next_in_order_ + ahead; });
  waiting_.emplace(number, std::move(batches));
  while (!waiting_.empty() && waiting_.begin()->first == next_in_order_) {
    const auto turn = waiting_.extract(waiting_.begin());
    for (const BoxedBatch& batch : turn.mapped()) send(*batch, keeper);
    ++next_in_order_;
  }
  lock.unlock();
  order_moved_.notify_all();
}

}  // namespace millrace::host
