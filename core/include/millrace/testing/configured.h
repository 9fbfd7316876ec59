#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

#include "millrace/plugin.h"

/// The plugin under test: the one whose sources are linked into the test.
extern "C" MILLRACE_EXPORT const millrace::PluginHead millrace_plugin;

namespace millrace::testing {

/// A stage of the plugin under test with its options, as the host gets them out of a pipeline file.
struct Configured {
  const StageDescriptor* descriptor = nullptr;
  std::shared_ptr<void> options;
};

/// What `millrace check` would report of the options; the message is the whole report.
class BadOptions : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The stage of that name in `body`; throws std::invalid_argument, naming those there are.
[[nodiscard]] const StageDescriptor& find_stage(const PluginBody& body, std::string_view name);
/// `toml` holds the stage's own options as its section in a pipeline file does. Throws BadOptions.
[[nodiscard]] Configured configure(const StageDescriptor& stage, std::string_view toml);

/// How `use = "..."` would find it, without the plugin's name.
[[nodiscard]] inline const StageDescriptor& descriptor(std::string_view stage) {
  return find_stage(millrace_plugin.body(), stage);
}
/// The stage with the options that `toml` gives it: `Driven<LongOnly> stage(configured("long-only",
/// "min_length = 100"))`. Throws BadOptions.
[[nodiscard]] inline Configured configured(std::string_view stage, std::string_view toml = {}) {
  return configure(descriptor(stage), toml);
}
/// What `millrace check` says of the options; empty: nothing is wrong with them.
[[nodiscard]] inline std::string problems(std::string_view stage, std::string_view toml) {
  try {
    (void)configured(stage, toml);
  } catch (const BadOptions& error) {
    return error.what();
  }
  return {};
}

}  // namespace millrace::testing
