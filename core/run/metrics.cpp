#include <fmt/format.h>

#include "millrace/json.h"

#include "run/pipeline.h"

namespace millrace::host {

namespace {

/// Label values of the Prometheus text format.
std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
      continue;
    }
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

class Exposition {
 public:
  void family(std::string_view name, std::string_view type, std::string_view help) {
    name_ = name;
    text_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
  }
  void sample(int value) { text_ += fmt::format("{} {}\n", name_, value); }
  template <class Value>
  void sample(std::string_view stage, Value value, std::string_view label = {},
              std::string_view label_value = {}) {
    text_ += fmt::format("{}{{stage={}", name_, quoted(stage));
    if (!label.empty()) text_ += fmt::format(",{}={}", label, quoted(label_value));
    text_ += fmt::format("}} {}\n", value);
  }
  [[nodiscard]] std::string take() { return std::move(text_); }

 private:
  std::string text_;
  std::string name_;
};

}  // namespace

std::string metrics_text(const std::vector<std::unique_ptr<StageRunner>>& stages, bool ready) {
  Exposition out;
  out.family("millrace_ready", "gauge", "1 while /health answers 200.");
  out.sample(ready ? 1 : 0);
  out.family("millrace_condition", "gauge", "1 while a condition of the stage holds, by name.");
  for (const auto& stage : stages) {
    for (const auto& [name, holds] : stage->account().conditions.states()) {
      out.sample(stage->plan().name, holds ? 1 : 0, "name", name);
    }
  }
  out.family("millrace_stage_retrying", "gauge",
             "1 while calls of the stage fail for a passing reason and are repeated.");
  for (const auto& stage : stages) {
    out.sample(stage->plan().name, stage->retrying() ? 1 : 0);
  }
  const auto counters = [&](std::string_view name, std::string_view help, auto member) {
    out.family(name, "counter", help);
    for (const auto& stage : stages) {
      out.sample(stage->plan().name, (stage->account().*member).value());
    }
  };
  counters("millrace_items_in_total", "Items that the stage was given.", &Account::in);
  counters("millrace_items_out_total", "Items that the stage gave on.", &Account::out);
  counters("millrace_items_rejected_total", "Items that the stage can never handle.",
           &Account::rejected);
  counters("millrace_items_failed_total", "Items that came while or after the stage failed.",
           &Account::failed);
  counters("millrace_items_retried_total", "Items of calls that had to be repeated.",
           &Account::retried);
  counters("millrace_batches_undelivered_total", "Batches of a source whose receipt failed.",
           &Account::undelivered);
  out.family("millrace_items_dropped_total", "counter", "Items dropped on purpose, by reason.");
  for (const auto& stage : stages) {
    for (const auto& [reason, n] : stage->account().dropped()) {
      out.sample(stage->plan().name, n, "reason", reason);
    }
  }
  out.family("millrace_stage_count_total", "counter", "The stage's own counters, by name.");
  for (const auto& stage : stages) {
    for (const auto& [name, n] : stage->account().counters()) {
      out.sample(stage->plan().name, n, "name", name);
    }
  }
  out.family("millrace_stage_busy_seconds_total", "counter", "Time in the stage's own code.");
  for (const auto& stage : stages) {
    out.sample(stage->plan().name, static_cast<double>(stage->account().busy_ns.value()) / 1e9);
  }
  out.family("millrace_queue_batches", "gauge", "Batches that wait in front of the stage.");
  for (const auto& stage : stages) {
    if (stage->has_queue()) out.sample(stage->plan().name, stage->waiting());
  }
  return out.take();
}

}  // namespace millrace::host
