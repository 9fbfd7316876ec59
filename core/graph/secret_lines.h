#pragma once

#include <optional>
#include <span>

#include "graph/plan.h"

namespace millrace::host {

/// A line that is no TOML is shown as it stands, but not the value of an option that may be a
/// secret: one that its plugin calls so, and where that cannot be told (a plugin that is not known,
/// a name that no option has) any. `stages` and `provider` are those of `spec` as far as they were
/// looked up.
void hide_lines_left_out(const PipelineSpec& spec, std::span<const Plan::Stage> stages,
                         const std::optional<Plan::Stage>& provider, Report& report);

}  // namespace millrace::host
