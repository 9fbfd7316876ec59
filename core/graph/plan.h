#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/plugin.h"

#include "config/pipeline_file.h"
#include "config/report.h"
#include "plugin/registry.h"

namespace millrace::host {

/// "source", "transform", ...
[[nodiscard]] std::string_view kind_name(StageKind kind);
/// "Packet" for "millrace.Packet".
[[nodiscard]] std::string_view short_name(const ItemType& type);

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
    /// What it is in the graph: a queue stage has become a sink and a source.
    StageKind kind = StageKind::source;
    bool gives_out = false;  ///< the half of a queue that gives items out
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
  /// What [config] names, with its options; only its `descriptor`, `options`, `at` and `entries`
  /// mean something.
  std::optional<Stage> provider;
};

/// Looks everything up and checks it; loads only the plugins that the file names. All problems go
/// to `report`; the plan may be run only if it is empty.
[[nodiscard]] Plan make_plan(const PipelineSpec& spec, Registry& registry, Report& report);

/// Only what [config] names; loads no other plugin. Nothing if the file has no such section, or on
/// errors, which go to `report`.
[[nodiscard]] std::optional<Plan::Stage> make_provider_plan(const PipelineSpec& spec,
                                                            Registry& registry, Report& report);

/// Asks every stage whether its options can work on this machine now (StageDescriptor::probed),
/// with this data folder of the installation.
void probe(const Plan& plan, const std::filesystem::path& data_folder, Report& report);

/// Leaves the stages `text` names: "..q" what feeds the queue stage q and its taking half, "q.."
/// its giving half and what that feeds, "a..b" from one to the other. What is cut off must be cut
/// at queues. Returns what is wrong with `text`, or nothing.
[[nodiscard]] std::optional<std::string> cut(Plan& plan, const std::string& text);

/// The same as far as the names of the file's stages tell it, before any plugin is loaded.
[[nodiscard]] std::optional<std::string> check_cut(const std::string& text,
                                                   const std::vector<std::string>& stages);

/// `millrace graph`.
enum class GraphFormat : std::uint8_t { text, dot, mermaid };
[[nodiscard]] std::string draw(const Plan& plan, GraphFormat format);

}  // namespace millrace::host
