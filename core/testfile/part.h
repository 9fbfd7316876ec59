#pragma once

#include <set>
#include <string>

#include "config/pipeline_file.h"

namespace millrace::host {

[[nodiscard]] bool reads(const StageSpec& reader, const std::string& name);

/// `name` and all stages that it feeds, directly or not.
[[nodiscard]] std::set<std::string> fed_by(const PipelineSpec& spec, const std::string& name);

/// "A..B" all stages on the way from A to B, "A.." what A feeds, "..B" what feeds B, "A" this one;
/// both ends included, all of them stages of `spec`.
[[nodiscard]] std::set<std::string> stages_of_part(const PipelineSpec& spec,
                                                   const std::string& part, Position at,
                                                   Report& report);

}  // namespace millrace::host
