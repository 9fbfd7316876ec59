#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "millrace/option.h"
#include "millrace/time.h"

#include "config/report.h"
#include "config/setting.h"
#include "config/toml.h"
#include "config/value.h"
#include "config/variables.h"

namespace millrace::host {

enum class WhenFull : std::uint8_t { block, drop_newest, drop_oldest };
enum class OnReject : std::uint8_t { count, stop, file };

/// The bounds of a stage's queue.
struct QueueOptions {
  std::uint32_t batches = 16;
  ByteSize bytes = 64_MiB;
  WhenFull when_full = WhenFull::block;
};

/// The keys that every stage takes besides its own options.
struct HostOptions {
  std::uint32_t workers = 1;
  bool required = true;
  Duration retry_for = std::chrono::minutes(5);
  std::optional<QueueOptions> queue{};
  OnReject on_reject = OnReject::count;
  std::filesystem::path reject_file{};
  Position reject_at{};  ///< where `on_reject` is said
};

/// The specs behind HostOptions and QueueOptions, for help; `queue` and `on_reject` are read by
/// hand because they are tables.
[[nodiscard]] const std::vector<OptionSpec>& host_option_specs();
[[nodiscard]] const std::vector<OptionSpec>& queue_option_specs();

/// Every key that the host itself reads in a stage.
[[nodiscard]] const std::vector<std::string>& host_key_names();

/// A stage as the file says it, not yet looked up in any plugin.
struct StageSpec {
  std::string name;
  Position at;
  std::string use;  ///< empty if the file does not say (and that was reported)
  Position use_at;
  struct From {
    std::string name;
    Position at;
  };
  std::vector<From> from;
  HostOptions host;
  Position workers_at;
  ConfigValue::Table options;  ///< the rest
  /// Sections [stage.NAME.PLUGIN] of other plugins than the one in use.
  struct Section {
    std::string plugin;
    Position at;
  };
  std::vector<Section> unused;
};

struct PipelineSpec {
  std::string name;
  std::string about;
  std::vector<StageSpec> stages;  ///< in the order of the file
  /// [config]: `use` names a config provider; its options.
  std::optional<StageSpec> config;
  bool syntax_errors = false;
  std::vector<Position> left_out;  ///< lines that could not be read
};

/// Reads a pipeline file (docs/pipeline-files.md). Whatever is wrong goes to `report`.
[[nodiscard]] PipelineSpec read_pipeline(const std::filesystem::path& path,
                                         const Variables& variables,
                                         const std::vector<Setting>& settings, Report& report);

/// The same for text that is at hand; `name` stands in the errors.
[[nodiscard]] PipelineSpec read_pipeline_text(const std::string& name, std::string text,
                                              const Variables& variables,
                                              const std::vector<Setting>& settings, Report& report);

/// The same for a document that has been read.
[[nodiscard]] PipelineSpec read_pipeline_document(TomlDocument document, const Variables& variables,
                                                  const std::vector<Setting>& settings,
                                                  Report& report);

/// The content of a file; `what` it is stands in the error.
[[nodiscard]] std::optional<std::string> read_file(const std::filesystem::path& path,
                                                   const std::string& what, Report& report);

/// Reads `entries` into the options struct at `options`. Unknown keys are reported with the nearest
/// of the specs' names and `more_names`. Returns whether everything fitted.
bool bind_options(const ConfigValue::Table& entries, const std::vector<OptionSpec>& specs,
                  void* options, const std::string& owner, Position owner_at,
                  const std::vector<std::string>& more_names, bool report_missing, Report& report);

}  // namespace millrace::host
