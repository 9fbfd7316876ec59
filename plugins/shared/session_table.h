#pragma once

#include <algorithm>
#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "millrace/plugin.h"

namespace millrace {

/// One column that a sink's table must have; the sink's README says what it holds.
struct Column {
  std::string_view name;
  std::string_view type;  ///< as CREATE TABLE has it
  bool nullable = false;
};

/// Everything that is wrong with the columns of a table that is there. `columns` is what its server
/// tells of them, by name: `nullable`, `needs_value` (a row that says nothing of it is refused),
/// and what `fault` looks at, which says what else is wrong with one, or nothing.
template <class Found>
[[nodiscard]] std::vector<std::string> faults_of_columns(
    std::span<const Column> wanted, const std::map<std::string, Found>& columns,
    std::string (&fault)(const Column&, const Found&)) {
  std::vector<std::string> faults;
  for (const Column& column : wanted) {
    const auto found = columns.find(std::string(column.name));
    if (found == columns.end()) {
      faults.push_back(fmt::format("column '{}' ({}) is missing", column.name, column.type));
    } else if (std::string what = fault(column, found->second); !what.empty()) {
      faults.push_back(std::move(what));
    } else if (column.nullable && !found->second.nullable) {
      faults.push_back(fmt::format("column '{}' is NOT NULL, expected to take NULL", column.name));
    }
  }
  for (const auto& [name, found] : columns) {
    const bool known =
        std::ranges::find(wanted, std::string_view(name), &Column::name) != wanted.end();
    if (!known && found.needs_value) {
      faults.push_back(fmt::format(
          "column '{}' is none of this stage's, and needs a default or to take NULL", name));
    }
  }
  return faults;
}

/// Throws ConfigError for the option "table" that names the faults, if there are any.
void refuse_faults(const std::string& table, const std::vector<std::string>& faults);

/// Adds what is wrong with the option "table": a name that needs more than quotes, or is too long.
void check_table_name(std::string_view table, std::size_t longest, Findings& findings);

}  // namespace millrace
