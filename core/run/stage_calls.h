#pragma once

// What StageRunner's calls of a stage are made of; for its own sources.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "millrace/completion.h"

#include "run/host_context.h"
#include "run/stage_runner.h"

namespace millrace::host {

struct StageRunner::Instance {
  explicit Instance(StageRunner& runner)
      : context(runner.plan_.name, runner.plan_.descriptor->counts_handled, runner.account_,
                runner.state_.surroundings,
                [&runner](std::string_view reason, BatchBase& items) {
                  runner.reject_late(reason, items);
                }),
        stage((runner.plan_.gives_out
                   ? runner.plan_.descriptor->create_output
                   : runner.plan_.descriptor->create)(runner.plan_.options.get())) {}

  HostContext context;
  std::unique_ptr<Stage> stage;
  bool opened = false;
};

/// What a stage pushes into: completes the batch and sends it to the readers, or, with several
/// workers, keeps it until its turn comes.
class StageRunner::Emitter final : public Downstream {
 public:
  /// With `kept` what is pushed goes there and not to the readers.
  Emitter(StageRunner& runner, Timekeeper& keeper, std::vector<BoxedBatch>* kept = nullptr)
      : runner_(runner), keeper_(keeper), kept_(kept) {}

  void begin(const BatchBase* input) { completion_.begin(input); }
  [[nodiscard]] std::size_t pushed() const { return completion_.pushed(); }

  void push(BatchBase& batch) override {
    completion_.complete(batch);
    if (kept_ != nullptr) {
      kept_->push_back(batch.type().box(std::move(batch)));
    } else {
      runner_.send(batch, keeper_);
    }
  }

 private:
  StageRunner& runner_;
  Timekeeper& keeper_;
  std::vector<BoxedBatch>* const kept_;
  detail::Completion completion_;
};

inline void StageRunner::attempt(Instance& instance, BatchBase& batch, std::size_t items,
                                 Emitter& out) {
  const std::uint64_t dropped_before = instance.context.dropped_items.value();
  out.begin(&batch);
  instance.stage->process_erased(batch, out);
  if (!plan_.descriptor->counts_handled) {
    account_.handled.add(items - (instance.context.dropped_items.value() - dropped_before));
  }
  batch.receipt.done();
}

}  // namespace millrace::host
