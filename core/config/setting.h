#pragma once

#include <optional>
#include <string>

#include "config/toml.h"
#include "config/variables.h"

namespace millrace::host {

/// `stage.key=value` from the command line; or `stage.key` with a value that has been read.
struct Setting {
  std::string text;
  std::optional<ConfigValue> value{};
};

/// Puts `stage.key=value` (or `stage.queue.key=value`, or `config.key=value` for the [config]
/// section) into the document, replacing what stands there. Errors name the key, not the value,
/// which may be a secret.
void apply(const Setting& setting, const Variables& variables, TomlDocument& document,
           Report& report);

}  // namespace millrace::host
