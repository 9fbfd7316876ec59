#include <algorithm>

#include <fmt/format.h>

#include "graph/plan.h"

namespace millrace::host {

namespace {

constexpr const char* kForm =
    "expected ..QUEUE, QUEUE.. or QUEUE..QUEUE, with the names of queue stages";

struct Ends {
  std::string first;  ///< empty: from the sources
  std::string last;   ///< empty: to the sinks
};

std::optional<Ends> ends_of(const std::string& text) {
  const std::size_t dots = text.find("..");
  if (dots == std::string::npos || text == "..") return std::nullopt;
  return Ends{text.substr(0, dots), text.substr(dots + 2)};
}

/// "queue" for a half of the queue stage "queue".
std::string_view queue_name(const Plan::Stage& stage) {
  const bool half = stage.descriptor->kind == StageKind::queue;
  return half ? std::string_view(stage.name).substr(0, stage.name.rfind('.')) : std::string_view();
}

/// Marks `from` and everything that reads from it, directly or not.
void mark(const Plan& plan, std::size_t from, std::vector<std::uint8_t>& marks) {
  marks[from] = 1;
  for (const Plan::Edge& edge : plan.stages[from].to) mark(plan, edge.to, marks);
}

std::optional<std::string> find_queue(const Plan& plan, const std::string& name,
                                      std::size_t& giving) {
  std::vector<std::string> queues;
  for (std::size_t i = 0; i < plan.stages.size(); ++i) {
    const Plan::Stage& stage = plan.stages[i];
    if (!stage.gives_out) continue;
    queues.emplace_back(queue_name(stage));
    if (queues.back() != name) continue;
    giving = i;
    if (stage.descriptor->whole_reason.empty()) return std::nullopt;
    return fmt::format("the pipeline cannot be cut at '{}': {} {}", name, stage.use,
                       stage.descriptor->whole_reason);
  }
  const bool known = std::ranges::find(plan.stages, name, &Plan::Stage::name) != plan.stages.end();
  const std::string meant = nearest(name, queues);
  return fmt::format("{} '{}'{}; a pipeline is cut at queue stages{}",
                     known ? "there is no queue in stage" : "there is no stage", name,
                     meant.empty() ? "" : fmt::format(" (did you mean '{}'?)", meant),
                     queues.empty() ? ", and this one has none"
                                    : fmt::format(", here {}", fmt::join(queues, ", ")));
}

std::optional<std::string> keep_only(Plan& plan, const std::vector<std::uint8_t>& keep) {
  std::vector<std::size_t> place(plan.stages.size());
  std::size_t next = 0;
  for (std::size_t i = 0; i < plan.stages.size(); ++i) place[i] = keep[i] != 0 ? next++ : SIZE_MAX;
  if (next == 0) return "nothing is left of the pipeline";
  std::vector<Plan::Stage> stages;
  for (std::size_t i = 0; i < plan.stages.size(); ++i) {
    if (keep[i] == 0) continue;
    Plan::Stage& stage = stages.emplace_back(plan.stages[i]);
    for (std::size_t& from : stage.from) {
      if (place[from] == SIZE_MAX) {
        return fmt::format("stage '{}' reads from '{}' as well, which is cut off", stage.name,
                           plan.stages[from].name);
      }
      from = place[from];
    }
    for (Plan::Edge& edge : stage.to) {
      if (place[edge.to] == SIZE_MAX) {
        return fmt::format("stage '{}' also gives to '{}', which is cut off", stage.name,
                           plan.stages[edge.to].name);
      }
      edge.to = place[edge.to];
    }
  }
  plan.stages = std::move(stages);
  return std::nullopt;
}

}  // namespace

std::optional<std::string> check_cut(const std::string& text,
                                     const std::vector<std::string>& stages) {
  const auto ends = ends_of(text);
  if (!ends) return kForm;
  for (const std::string& name : {ends->first, ends->last}) {
    if (name.empty() || std::ranges::find(stages, name) != stages.end()) continue;
    const std::string meant = nearest(name, stages);
    return fmt::format("there is no stage '{}'{}", name,
                       meant.empty() ? "" : fmt::format(" (did you mean '{}'?)", meant));
  }
  return std::nullopt;
}

std::optional<std::string> cut(Plan& plan, const std::string& text) {
  const auto ends = ends_of(text);
  if (!ends) return kForm;
  const auto& [first, last] = *ends;
  std::vector<std::uint8_t> keep(plan.stages.size(), first.empty() ? 1 : 0);
  if (!first.empty()) {
    std::size_t giving = 0;
    if (auto wrong = find_queue(plan, first, giving)) return wrong;
    mark(plan, giving, keep);
  }
  if (!last.empty()) {
    std::size_t giving = 0;
    if (auto wrong = find_queue(plan, last, giving)) return wrong;
    std::vector<std::uint8_t> behind(plan.stages.size());
    mark(plan, giving, behind);
    for (std::size_t i = 0; i < keep.size(); ++i) keep[i] = keep[i] != 0 && behind[i] == 0 ? 1 : 0;
  }
  return keep_only(plan, keep);
}

}  // namespace millrace::host
