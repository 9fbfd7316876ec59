#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "millrace/option.h"

#include "config/report.h"

namespace millrace::host {

struct ConfigEntry;

/// A value of a pipeline file with its place, substitutions made.
struct ConfigValue {
  using List = std::vector<ConfigValue>;
  using Table = std::vector<ConfigEntry>;

  Position at;
  std::variant<bool, std::int64_t, double, std::string, List, Table> value;
  /// A text that came out of substitutions alone ("${COUNT}") may stand for a number or a truth
  /// value where one is expected.
  bool substituted = false;
  /// A reference in it could not be resolved (and was reported, or `check --no-env` leaves it
  /// open): nothing more can be said of the value.
  bool unresolved = false;
  Position end{};  ///< behind it

  [[nodiscard]] const std::string* text() const { return std::get_if<std::string>(&value); }
  [[nodiscard]] const List* list() const { return std::get_if<List>(&value); }
  [[nodiscard]] const Table* table() const { return std::get_if<Table>(&value); }
  [[nodiscard]] Table* table() { return std::get_if<Table>(&value); }
};

struct ConfigEntry {
  std::string key;
  Position key_at;
  ConfigValue value;
};

/// The entry of that key, or null.
[[nodiscard]] const ConfigEntry* find(const ConfigValue::Table& table, std::string_view key);

/// "an integer", "a text", ... for messages.
[[nodiscard]] std::string_view kind_of(const ConfigValue& value);

/// True if a reference inside could not be resolved.
[[nodiscard]] bool any_unresolved(const ConfigValue& value);

/// What an option's reader gets. `spec_type` is the OptionSpec's: a substituted text is read as a
/// number or truth value if that is what the option takes.
[[nodiscard]] OptionValue to_option_value(const ConfigValue& value, std::string_view spec_type);

/// Lets the report show no line with the value, or with what is in it.
void hide(const ConfigValue& value, Report& report);

/// A value as the file would write it, for messages.
[[nodiscard]] std::string to_text(const ConfigValue& value);

}  // namespace millrace::host
