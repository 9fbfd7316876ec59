#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "graph/plan.h"
#include "run/pipeline.h"

namespace millrace {

/// An item type of a plugin's own.
struct Number {
  int value = 0;
};
template <>
struct ItemTraits<Number> {
  static constexpr std::string_view name = "test.Number";
  static void describe(const Number& number, std::string& json) {
    json += std::to_string(number.value);
  }
};

}  // namespace millrace

namespace millrace::host::testing {

/// What the stages of one test write down; shared by reference, so each test has its own.
struct Notes {
  std::mutex mutex;
  std::vector<int> values;  ///< what sinks have taken
  int flushes = 0;
  int closes = 0;
  std::atomic<int> receipts_done{0};
  std::atomic<int> receipts_failed{0};
};

/// Gives 0, 1, 2, ... in batches of `size`.
class Counting final : public Source<Number> {
 public:
  Counting(Notes& notes, int total, int size) : notes_(notes), total_(total), size_(size) {}
  void run(Output<Number>& out, std::stop_token stop) override {
    for (int next = 0; (total_ < 0 || next < total_) && !stop.stop_requested();) {
      Batch<Number> batch;
      for (int i = 0; i < size_ && (total_ < 0 || next < total_); ++i)
        batch.items.push_back({next++});
      batch.watermark = Timestamp(std::chrono::seconds(next));
      batch.receipt = Receipt::make([&notes = notes_](Outcome outcome) noexcept {
        ++(outcome == Outcome::done ? notes.receipts_done : notes.receipts_failed);
      });
      out.push(std::move(batch));
    }
  }

 private:
  Notes& notes_;
  int total_;
  int size_;
};

/// Calls a function for each batch, then gives it on.
class Through final : public Transform<Number, Number> {
 public:
  using Function = std::function<void(Batch<Number>&)>;
  explicit Through(Function function) : function_(std::move(function)) {}
  void process(Batch<Number>& in, Output<Number>& out) override {
    function_(in);
    Batch<Number> copy(in.items);
    out.push(std::move(copy));
  }

 private:
  Function function_;
};

/// Writes down what comes, and that it is flushed, after calling a function that may throw.
class Noting final : public Sink<Number> {
 public:
  using Function = std::function<void(Batch<Number>&)>;
  Noting(Notes& notes, Function function, std::function<void()> on_flush = {})
      : notes_(notes), function_(std::move(function)), on_flush_(std::move(on_flush)) {}
  void write(Batch<Number>& in) override {
    if (function_) function_(in);
    const std::lock_guard lock(notes_.mutex);
    for (const Number& number : in.items) notes_.values.push_back(number.value);
  }
  void flush() override {
    if (on_flush_) on_flush_();
    const std::lock_guard lock(notes_.mutex);
    ++notes_.flushes;
  }
  void close() noexcept override {
    const std::lock_guard lock(notes_.mutex);
    ++notes_.closes;
  }

 private:
  Notes& notes_;
  Function function_;
  std::function<void()> on_flush_;
};

/// Puts a plan together without plugins and pipeline files.
class PlanBuilder {
 public:
  template <class Make>
  PlanBuilder& add(const std::string& name, StageKind kind, std::vector<std::size_t> from,
                   Make make, const HostOptions& host = {}) {
    auto descriptor = std::make_unique<StageDescriptor>();
    descriptor->name = name;
    descriptor->kind = kind;
    if (kind != StageKind::source) descriptor->input = &item_type<Number>();
    if (kind != StageKind::sink) descriptor->output = &item_type<Number>();
    descriptor->create = [make](const void*) -> std::unique_ptr<Stage> { return make(); };
    Plan::Stage stage;
    stage.name = name;
    stage.use = name;
    stage.descriptor = descriptor.get();
    stage.kind = kind;
    stage.host = host;
    stage.from = from;
    for (const std::size_t up : from) plan_.stages[up].to.push_back({plan_.stages.size(), nullptr});
    plan_.stages.push_back(std::move(stage));
    descriptors_.push_back(std::move(descriptor));
    return *this;
  }
  /// The stage added last is given its input through `adapter`, which the builder keeps.
  void adapt(InputAdapter adapter) {
    const std::size_t to = plan_.stages.size() - 1;
    adapters_.push_back(std::make_unique<InputAdapter>(std::move(adapter)));
    for (const std::size_t up : plan_.stages[to].from) {
      for (Plan::Edge& edge : plan_.stages[up].to) {
        if (edge.to == to) edge.adapter = adapters_.back().get();
      }
    }
  }
  /// The stage added last counts what it has handled by itself.
  void aggregates() { descriptors_.back()->counts_handled = true; }
  [[nodiscard]] const Plan& plan() const { return plan_; }

 private:
  Plan plan_;
  std::vector<std::unique_ptr<StageDescriptor>> descriptors_;
  std::vector<std::unique_ptr<InputAdapter>> adapters_;
};

/// Runs what a test puts together; the books must balance.
class PipelineTest : public ::testing::Test {
 protected:
  void source(int total, int size) {
    builder_.add("numbers", StageKind::source, {},
                 [=, this] { return std::make_unique<Counting>(notes_, total, size); });
  }
  void through(std::size_t from, Through::Function function, const HostOptions& host = {}) {
    builder_.add(
        "through", StageKind::transform, {from},
        [=] { return std::make_unique<Through>(function); }, host);
  }
  void sink(std::vector<std::size_t> from, Noting::Function function = {},
            const HostOptions& host = {}) {
    builder_.add(
        "sink", StageKind::sink, std::move(from),
        [=, this] { return std::make_unique<Noting>(notes_, function); }, host);
  }
  Exit run() {
    Logger logger(LogFormat::text, least_);
    options_.summary = false;
    pipeline_ = std::make_unique<Pipeline>(builder_.plan(), options_, logger);
    Report report;
    if (const Exit opened = pipeline_->open(report); opened != Exit::done) return opened;
    const Exit exit = pipeline_->run();
    EXPECT_THAT(imbalances(pipeline_->stages()), ::testing::IsEmpty());
    return exit;
  }
  Account& account(std::size_t stage) { return pipeline_->stages()[stage]->account(); }

  static std::vector<int> numbers(int count) {
    std::vector<int> list(static_cast<std::size_t>(count));
    std::iota(list.begin(), list.end(), 0);
    return list;
  }

  Notes notes_;
  PlanBuilder builder_;
  RunOptions options_;
  LogLevel least_ = LogLevel::warning;
  std::unique_ptr<Pipeline> pipeline_;
};

}  // namespace millrace::host::testing
