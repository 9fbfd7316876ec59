#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "millrace/plugin.h"

#include "config/pipeline_file.h"
#include "config/report.h"
#include "plugin/registry.h"

namespace millrace::host {

/// A checked pipeline: every stage with its descriptor, its options and its edges.
struct Plan {
  struct Edge {
    std::size_t to = 0;                     ///< index into `stages`
    const InputAdapter* adapter = nullptr;  ///< null: the types are the same
  };
  struct Stage {
    std::string name;
    std::string use;
    const StageDescriptor* descriptor = nullptr;
    std::shared_ptr<void> options;
    HostOptions host;
    std::vector<std::size_t> from;
    std::vector<Edge> to;
    Position at;
    ConfigValue::Table entries;  ///< for the place of an option in later errors

    /// The place of an option's value, or of the stage if the file does not set it.
    [[nodiscard]] Position option_at(const std::string& option) const;
  };

  std::string name;
  std::string about;
  std::vector<Stage> stages;  ///< every stage after those it reads from
};

/// Looks everything up and checks it; loads only the plugins that the file names. All problems go
/// to `report`; the plan may be run only if it is empty.
[[nodiscard]] Plan make_plan(const PipelineSpec& spec, Registry& registry, Report& report);

/// `millrace graph`.
enum class GraphFormat : std::uint8_t { text, dot, mermaid };
[[nodiscard]] std::string draw(const Plan& plan, GraphFormat format);

}  // namespace millrace::host
