#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <vector>

#include "millrace/error.h"
#include "millrace/stage.h"

#include "graph/plan.h"
#include "run/account.h"
#include "run/busy.h"
#include "run/dead_letters.h"
#include "run/health.h"
#include "run/host_context.h"
#include "run/log_limit.h"
#include "run/logger.h"
#include "run/queue.h"
#include "run/retries.h"

namespace millrace::host {

class StageRunner;

/// What the stages of one running pipeline share.
struct RunState {
  RunState(Logger& logger, std::filesystem::path data, std::chrono::milliseconds blocked_for)
      : surroundings{logger, std::move(data)}, blocked(blocked_for) {
    surroundings.incomplete = [this] { return incomplete(); };
  }

  Surroundings surroundings;
  const std::chrono::milliseconds blocked;  ///< see RunOptions
  std::stop_source stop;                    ///< asks the sources to end
  std::atomic<bool> failed{false};          ///< a stage has, and the exit code will say so
  std::atomic<bool> stopping{false};        ///< one that is required has: the pipeline ends
  BusySampler sampler;

  /// Remembers why the pipeline fails; the first cause is told in the end.
  void fail(const std::string& cause, bool required) {
    const std::lock_guard lock(mutex_);
    if (cause_.empty()) cause_ = cause;
    failed = true;
    if (required) stopping = true;
  }
  [[nodiscard]] std::string cause() const {
    const std::lock_guard lock(mutex_);
    return cause_;
  }
  /// A source was stopped before the end of what it reads.
  void stopped_early(std::string what) {
    const std::lock_guard lock(mutex_);
    if (cut_short_.empty()) cut_short_ = std::move(what);
  }
  [[nodiscard]] std::string cut_short() const {
    const std::lock_guard lock(mutex_);
    return cut_short_;
  }
  /// Why not all of the input has come or will come, as far as is known now; empty: nothing is
  /// missing.
  [[nodiscard]] std::string incomplete() const {
    const std::lock_guard lock(mutex_);
    return cause_.empty() ? cut_short_ : cause_;
  }

 private:
  mutable std::mutex mutex_;
  std::string cause_;
  std::string cut_short_;
};

/// One stage of a running pipeline: its instances, its queue if it has one, its account, and the
/// way to the stages behind it. See docs/running.md for what runs on which thread.
class StageRunner {
 public:
  StageRunner(const Plan::Stage& plan, RunState& state);
  StageRunner(const StageRunner&) = delete;
  StageRunner& operator=(const StageRunner&) = delete;
  ~StageRunner();

  [[nodiscard]] const Plan::Stage& plan() const { return plan_; }
  [[nodiscard]] Account& account() { return account_; }
  [[nodiscard]] const Account& account() const { return account_; }
  [[nodiscard]] std::size_t workers() const { return instances_.size(); }
  [[nodiscard]] bool has_queue() const { return queue_ != nullptr; }
  /// Batches in its queue.
  [[nodiscard]] std::size_t waiting() const { return queue_->waiting(); }
  [[nodiscard]] bool gave_up() const { return failed_; }
  /// Its name, if at this moment it is in a call of the stage's own code; with the reason, if the
  /// call has failed and is repeated. Else empty.
  [[nodiscard]] std::string at_work() const;
  /// It has failed, or a required stage behind it has: a batch's receipt can only fail.
  [[nodiscard]] bool leads_to_failure() const;
  /// What keeps it from its work at this moment. Any thread.
  void add_troubles(Health& health) const;
  [[nodiscard]] bool retrying() const { return retries_.outage().has_value(); }
  struct Progress {
    std::uint64_t done = 0;
    std::uint64_t total = 0;
  };
  [[nodiscard]] Progress progress() const {
    return {account_.progress_done, account_.progress_total};
  }

  // Putting together, in this order.
  /// Makes all instances and opens them; throws what `open` throws, and a ConfigError for an
  /// instance that cannot be made.
  void open();
  void close() noexcept;
  /// After all runners are open: makes the queue if this stage needs one.
  void make_queue(bool upstream_has_workers);
  /// Becomes a reader of `upstream`.
  void attach_to(StageRunner& upstream, const InputAdapter* adapter);

  // The bodies of threads; they let nothing out.
  void run_source() noexcept;
  void run_worker(std::size_t worker) noexcept;

 private:
  class Emitter;
  struct Instance;
  struct Reader {
    StageRunner* stage;
    const InputAdapter* adapter;
    std::size_t producer;  ///< this stage's number among the reader's inputs
  };

  /// `items` is what the batch holds, counted once on its way; `as`: which of the inputs it is.
  void accept(BatchBase& batch, std::size_t items, const Reader& as, Timekeeper& keeper);
  BoxedBatch convert(BatchBase& batch, std::size_t items, const InputAdapter& adapter,
                     Timekeeper& keeper);
  void accept_fused(BatchBase& batch, std::size_t items, Timekeeper& keeper);
  void call(Instance& instance, BatchBase& batch, std::size_t items, Emitter& out,
            Timekeeper& keeper);
  void attempt(Instance& instance, BatchBase& batch, std::size_t items, Emitter& out);
  bool call_again(std::exception_ptr thrown, Instance& instance, BatchBase& batch,
                  std::size_t items, Emitter& out, Timekeeper& keeper);
  bool pause(const Transient& error, Retries::Call& repeated, const Receipt::Deadline& deadline,
             Timekeeper& keeper);
  void recover(std::size_t items, bool repeated);
  void give_up(const Transient& error, const Retries::Call& repeated, std::size_t items);
  void handle_rejected(const Rejected& error, BatchBase& batch);
  /// Counts the items and does what `on_reject` says.
  void set_aside(std::string_view reason, const BatchBase& rejected);
  /// For Context::rejected, on any thread.
  void reject_late(std::string_view reason, BatchBase& items);
  void flush(Instance& instance, Emitter& out, Timekeeper& keeper);
  void finish(Timekeeper& keeper);
  void tell_rest();
  void input_ended(std::size_t producer, Timekeeper& keeper);
  void send(BatchBase& batch, Timekeeper& keeper);
  void deliver_in_order(std::uint64_t number, std::vector<BoxedBatch> batches, Timekeeper& keeper);
  void discard(const std::vector<BoxedBatch>& batches, std::string_view reason);
  /// Accounts for a batch that this stage does not get to see.
  void lose(BatchBase& batch, std::size_t items, std::string_view reason);
  void fail(const std::string& what);

  const Plan::Stage& plan_;
  RunState& state_;
  Account account_;
  Retries retries_;
  LogLimit rejected_lines_;
  LogLimit given_up_lines_;
  std::vector<std::unique_ptr<Instance>> instances_;
  std::vector<Reader> readers_;
  StageRunner* fused_ = nullptr;  ///< the only reader, if nothing stands between: the usual case
  std::size_t inputs_ = 0;
  Coalesce coalesce_;
  std::unique_ptr<BatchQueue> queue_;
  std::unique_ptr<DeadLetters> dead_letters_;
  std::atomic<bool> failed_{false};
  struct Failure {
    std::string what;
    std::chrono::steady_clock::time_point since{};
  };
  mutable std::mutex failure_mutex_;
  Failure failure_;
  /// Not required, and the last batch was given up: until one is taken, each gets one attempt, and
  /// the queue drops what finds it full.
  std::atomic<bool> down_{false};

  // With several workers: what they made, until it is its turn.
  std::mutex order_mutex_;
  std::condition_variable order_moved_;
  std::map<std::uint64_t, std::vector<BoxedBatch>> waiting_;
  std::uint64_t next_in_order_ = 0;
  std::atomic<std::size_t> workers_left_{0};
};

}  // namespace millrace::host
