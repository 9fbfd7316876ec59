#include "row_event.h"

#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "byte_reader.h"
#include "column_value.h"

namespace millrace {

namespace {

using Bytes = std::span<const std::uint8_t>;

constexpr std::size_t kMostValues = 1U << 20U;

std::size_t count(Bytes bitmap, std::size_t columns) {
  std::size_t set = 0;
  for (std::size_t i = 0; i < columns; ++i) set += bit_of(bitmap, i) ? 1 : 0;
  return set;
}

/// `before`: where columns that the row does not have come from; without it, the row has all.
Change::Row read_row(ByteReader& reader, const TableMap& map, Bytes present,
                     const Change::Row* before = nullptr) {
  const Bytes nulls = reader.take((count(present, map.columns.size()) + 7) / 8);
  Change::Row row;
  row.reserve(map.columns.size());
  std::size_t position = 0;  // among those that the row has
  for (std::size_t i = 0; i < map.columns.size(); ++i) {
    const Column& column = map.columns[i];
    if (before != nullptr && !bit_of(present, i)) {
      row.push_back(before->at(i));
    } else if (bit_of(nulls, position++)) {
      row.emplace_back(column.name, std::nullopt);
    } else {
      try {
        row.emplace_back(column.name, read_value(reader, column));
      } catch (const std::runtime_error& error) {
        throw std::runtime_error(fmt::format("column '{}': {}", column.name, error.what()));
      }
    }
  }
  return row;
}

}  // namespace

std::vector<Change> read_rows(const TableMap& map, const RowEvent& event) {
  if (event.columns != map.columns.size()) {
    throw std::runtime_error(
        fmt::format("it has {} columns, and its table {}", event.columns, map.columns.size()));
  }
  // Rows without a byte of their own would have no end.
  if (event.columns == 0) throw std::runtime_error("its table has no columns");
  const std::size_t size = (event.columns + 7) / 8;
  const bool update = event.kind == Change::Kind::updated;
  if (event.present.size() != size || (update && event.present_after.size() != size)) {
    throw std::runtime_error("the event ends too early");
  }
  if (count(event.present, event.columns) != event.columns) {
    throw std::runtime_error(
        "it does not hold whole rows; set binlog_row_image = FULL, for the server and for sessions "
        "that set it themselves");
  }
  std::vector<Change> changes;
  ByteReader reader(event.rows);
  while (!reader.at_end()) {
    // A NULL takes a bit of the event and some hundred bytes here.
    if ((changes.size() + 1) * event.columns > kMostValues) {
      throw std::runtime_error(fmt::format(
          "it has more than {} values; set a lower binlog_row_event_max_size", kMostValues));
    }
    Change change;
    change.kind = event.kind;
    change.database = map.database;
    change.table = map.table;
    Change::Row row = read_row(reader, map, event.present);
    if (update) {
      change.after = read_row(reader, map, event.present_after, &row);
      change.before = std::move(row);
    } else {
      (event.kind == Change::Kind::inserted ? change.after : change.before) = std::move(row);
    }
    changes.push_back(std::move(change));
  }
  return changes;
}

}  // namespace millrace
