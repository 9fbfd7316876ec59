#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "millrace/change.h"

#include "table_map.h"

namespace millrace {

/// Rows of one table that a statement has changed.
struct RowEvent {
  Change::Kind kind = Change::Kind::inserted;
  std::size_t columns = 0;
  std::span<const std::uint8_t> present;        ///< columns that each row has, as bits
  std::span<const std::uint8_t> present_after;  ///< of an update, of the row after it
  std::span<const std::uint8_t> rows;
};

/// A column that is not in the row after an update has not changed. Throws std::runtime_error if
/// the event cannot be read, or does not hold the whole rows.
[[nodiscard]] std::vector<Change> read_rows(const TableMap& map, const RowEvent& event);

}  // namespace millrace
