#pragma once

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "config/pipeline_file.h"
#include "testfile/test_file.h"

namespace millrace::host {

/// The stage of that name, or null.
[[nodiscard]] const StageSpec* stage_named(const PipelineSpec& spec, std::string_view name);

/// Of a test's inputs or stubs the one for that stage, or null.
template <class T>
[[nodiscard]] const T* stand_in_for(const std::vector<T>& list, const std::string& name) {
  const auto found = std::ranges::find(list, name, &StandIn::stage);
  return found == list.end() ? nullptr : &*found;
}

/// Takes the errors of the section that begins at `at` out of the report.
void forget_section(Position at, const PipelineSpec& spec, Report& report);

/// Names of the stages that take part in the test, those that something stands in for included.
/// Checks the names that the test says, and takes errors in the sections of all other stages out of
/// the report. Nothing if the test is wrong.
[[nodiscard]] std::optional<std::set<std::string>> stages_under_test(const Test& test,
                                                                     const PipelineSpec& spec,
                                                                     Report& report);

}  // namespace millrace::host
