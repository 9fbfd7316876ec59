#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "millrace/batch.h"

namespace millrace {

/// One row of a database table that changed.
struct Change {
  enum class Kind : std::uint8_t { inserted, updated, deleted };
  /// Column name and value; no value is SQL NULL.
  using Row = std::vector<std::pair<std::string, std::optional<std::string>>>;

  Kind kind = Kind::inserted;
  std::string database;
  std::string table;
  Row before;  ///< empty for an insert
  Row after;   ///< empty for a delete
};

template <>
struct ItemTraits<Change> {
  static constexpr std::string_view name = "millrace.Change";
  static void describe(const Change& change, std::string& json);
};

}  // namespace millrace
