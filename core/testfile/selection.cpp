#include "testfile/selection.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include <fmt/format.h>

#include "testfile/part.h"

namespace millrace::host {

namespace {

class Selector {
 public:
  Selector(const Test& test, const PipelineSpec& spec, Report& report)
      : test_(test), spec_(spec), report_(report) {
    for (const StageSpec& stage : spec_.stages) names_.push_back(stage.name);
  }

  std::optional<std::set<std::string>> select() {
    const std::size_t before = report_.size();
    check_names();
    if (report_.size() == before) choose();
    const bool good = report_.size() == before;
    if (!good) kept_.clear();  // what takes part is not known
    forget_what_is_outside();
    return good ? std::optional(std::move(kept_)) : std::nullopt;
  }

 private:
  void check_name(const std::string& name, Position at) {
    if (stage_named(spec_, name) == nullptr && !name.empty()) {
      report_.add(at, fmt::format("the pipeline has no stage '{}'", name), {},
                  nearest(name, names_));
    }
  }

  void check_names() {
    for (const std::string& part : test_.stages) {
      const std::size_t dots = part.find("..");
      check_name(part.substr(0, dots), test_.stages_at);
      if (dots != std::string::npos) check_name(part.substr(dots + 2), test_.stages_at);
    }
    for (const StandIn& input : test_.inputs) check_name(input.stage, input.stage_at);
    for (const TestStub& stub : test_.stubs) {
      check_name(stub.stage, stub.stage_at);
      const StageSpec* place = stage_named(spec_, stub.stage);
      if (place != nullptr && place->from.empty()) {
        report_.add(stub.stage_at,
                    fmt::format("'{}' is a source, which no stub is for", stub.stage),
                    fmt::format("[[test.input]] with at = \"{}\"", stub.stage));
      }
    }
    for (const Expectation& expect : test_.expectations) {
      if (expect.where != Expectation::Where::file) check_name(expect.stage, expect.stage_at);
    }
  }

  /// Which stages are in the pipeline that is run.
  void choose() {
    if (!test_.stages.empty()) {
      for (const std::string& part : test_.stages) {
        kept_.merge(stages_of_part(spec_, part, test_.stages_at, report_));
      }
    } else if (test_.inputs.empty()) {
      kept_.insert(names_.begin(), names_.end());
    } else {
      for (const StandIn& input : test_.inputs) kept_.merge(fed_by(spec_, input.stage));
    }
    for (const StandIn& input : test_.inputs) {
      const StageSpec* place = stage_named(spec_, input.stage);
      if (place->from.empty()) {
        kept_.insert(input.stage);
      } else if (!kept_.contains(input.stage)) {
        report_.add(input.stage_at, fmt::format("'{}' is not under test", input.stage),
                    "a stage that 'stages' names");
      }
    }
    for (const TestStub& stub : test_.stubs) kept_.insert(stub.stage);
    for (const Expectation& expect : test_.expectations) {
      if (expect.where == Expectation::Where::file || kept_.contains(expect.stage)) continue;
      report_.add(expect.stage_at, fmt::format("'{}' is not under test", expect.stage),
                  fmt::format("one of {}", fmt::join(kept_, ", ")));
    }
  }

  /// Errors in the sections of stages that do not take part: a secret or a variable that only they
  /// need.
  void forget_what_is_outside() {
    for (const StageSpec& outside : spec_.stages) {
      if (kept_.contains(outside.name) && !replaced(outside)) continue;
      forget_section(outside.at, spec_, report_);
    }
  }

  /// Another stage stands under its name.
  [[nodiscard]] bool replaced(const StageSpec& stage) const {
    return stand_in_for(test_.stubs, stage.name) != nullptr ||
           (stage.from.empty() && stand_in_for(test_.inputs, stage.name) != nullptr);
  }

  const Test& test_;
  const PipelineSpec& spec_;
  Report& report_;
  std::vector<std::string> names_;
  std::set<std::string> kept_;
};

}  // namespace

const StageSpec* stage_named(const PipelineSpec& spec, std::string_view name) {
  const auto found = std::ranges::find(spec.stages, name, &StageSpec::name);
  return found == spec.stages.end() ? nullptr : &*found;
}

void forget_section(Position at, const PipelineSpec& spec, Report& report) {
  std::uint32_t end = UINT32_MAX;
  for (const StageSpec& other : spec.stages) {
    if (other.at.source == at.source && other.at.line > at.line) end = std::min(end, other.at.line);
  }
  report.remove_if([&](const Report::Entry& entry) {
    return entry.at.source == at.source && entry.at.line >= at.line && entry.at.line < end;
  });
}

std::optional<std::set<std::string>> stages_under_test(const Test& test, const PipelineSpec& spec,
                                                       Report& report) {
  return Selector(test, spec, report).select();
}

}  // namespace millrace::host
