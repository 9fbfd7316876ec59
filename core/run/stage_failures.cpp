// What a stage's exceptions lead to: another attempt, items set aside, a branch that is down, the
// end.

#include <algorithm>
#include <exception>
#include <functional>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "plugin/thrown.h"
#include "run/stage_calls.h"

namespace millrace::host {

/// The first attempt has ended with `thrown`. False: the batch is accounted for without the stage.
bool StageRunner::call_again(std::exception_ptr thrown, Instance& instance, BatchBase& batch,
                             std::size_t items, Emitter& out, Timekeeper& keeper) {
  for (Retries::Call repeated(retries_);;) {
    try {
      if (thrown) std::rethrow_exception(std::exchange(thrown, nullptr));
      attempt(instance, batch, items, out);
      if (repeated.failures() > 0) recover(items, true);
      return true;
    } catch (const Transient& error) {
      account_.retried.add(items);
      if (!pause(error, repeated, batch.receipt.deadline(), keeper)) {
        give_up(error, repeated, items);
        batch.receipt.fail();
        return false;
      }
    } catch (const Rejected& error) {
      try {
        handle_rejected(error, batch);
      } catch (const std::exception& failure) {
        fail(fmt::format("{} (while setting rejected items aside)", failure.what()));
      }
      const std::size_t given = std::exchange(items, batch.type().count(batch));
      if (items == 0 && !failed_) {
        // An answer, too: whatever it could not reach is back.
        if (repeated.failures() > 0) recover(given, true);
        batch.receipt.done();
        return false;
      }
    } catch (...) {
      fail(thrown_text());
    }
    if (failed_) {
      account_.failed.add(items);
      batch.receipt.fail();
      return false;
    }
  }
}

/// Waits before the next attempt; false if there is to be none.
bool StageRunner::pause(const Transient& error, Retries::Call& repeated,
                        const Receipt::Deadline& deadline, Timekeeper& keeper) {
  const Duration retry_for = down_ ? Duration(0) : plan_.host.retry_for;
  const auto wait = repeated.failed(error.what(), retry_for, deadline);
  if (!wait) return false;
  if (retries_.tell()) {
    state_.surroundings.logger.log(LogLevel::warning, plan_.name,
                                   fmt::format("{}; trying again", error.what()));
  }
  // The branches that are required must not wait for one that is not.
  if (repeated.failures() == 1 && queue_ && !plan_.host.required) queue_->set_lossy(true);
  const OnAccount waiting(keeper, nullptr);
  std::this_thread::sleep_for(*wait);
  return true;
}

void StageRunner::give_up(const Transient& error, const Retries::Call& repeated,
                          std::size_t items) {
  const std::string what = repeated.gave_up(error.what());
  if (plan_.host.required) {
    account_.failed.add(items);
    fail(what);
  } else {
    if (items > 0) account_.drop("retry-timeout", items);
    down_ = true;
    if (const auto more = given_up_lines_.admit(items)) {
      state_.surroundings.logger.log(LogLevel::error, plan_.name, what + and_more(*more));
    }
  }
}

/// A call that had been tried again (`repeated`), or that came after one that was given up, has
/// succeeded.
void StageRunner::recover(std::size_t items, bool repeated) {
  if (down_ && items == 0) return;  // that may have tried nothing
  down_ = false;
  if (queue_) queue_->set_lossy(false);
  const auto outage = retries_.succeeded(repeated);
  if (outage && outage->told) {
    state_.surroundings.logger.log(LogLevel::info, plan_.name, outage->over());
  }
}

void StageRunner::handle_rejected(const Rejected& error, BatchBase& batch) {
  const std::size_t count = batch.type().count(batch);
  std::vector<std::size_t> positions = error.items();
  if (positions.empty()) {
    for (std::size_t i = 0; i < count; ++i) positions.push_back(i);
  }
  const bool ascending =
      std::ranges::adjacent_find(positions, std::greater_equal<>()) == positions.end();
  if (count == 0 || !ascending || positions.back() >= count) {
    fail(fmt::format("it rejected items that it was not given: {}", error.what()));
    return;
  }
  const BoxedBatch rejected = batch.type().extract(batch, positions);
  set_aside(error.what(), *rejected);
}

void StageRunner::set_aside(std::string_view reason, const BatchBase& rejected) {
  const std::size_t items = rejected.type().count(rejected);
  account_.rejected.add(items);
  switch (plan_.host.on_reject) {
    case OnReject::count:
      break;
    case OnReject::file:
      dead_letters_->write(plan_.name, reason, rejected);
      break;
    case OnReject::stop:
      fail(fmt::format("rejected {} items: {}", items, reason));
      return;
  }
  if (const auto more = rejected_lines_.admit(items)) {
    state_.surroundings.logger.log(
        LogLevel::warning, plan_.name,
        fmt::format("rejected {} items: {}{}", items, reason, and_more(*more)));
  }
}

void StageRunner::reject_late(std::string_view reason, BatchBase& items) {
  try {
    set_aside(reason, items);
  } catch (const std::exception& failure) {
    fail(fmt::format("{} (while setting rejected items aside)", failure.what()));
  }
  items.receipt.resolve(failed_ ? Outcome::failed : Outcome::done);
}

void StageRunner::fail(const std::string& what) {
  {
    const std::lock_guard lock(failure_mutex_);
    if (failed_) return;
    failure_ = {what, std::chrono::steady_clock::now()};
    failed_ = true;
  }
  state_.surroundings.logger.log(LogLevel::error, plan_.name, what);
  state_.fail(fmt::format("stage '{}' ({}): {}", plan_.name, plan_.use, what), plan_.host.required);
  if (plan_.host.required) state_.stop.request_stop();
  if (queue_) discard(queue_->abandon(), "stage-failed");
}

}  // namespace millrace::host
