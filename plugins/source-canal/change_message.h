#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/change.h"

namespace millrace {

/// Who has written the messages of a topic.
enum class MessageFormat : std::uint8_t { canal, debezium, maxwell };

/// What one message says.
struct ChangeMessage {
  std::vector<Change> changes;
  /// Not empty: the message tells of no row, and why: "ddl", "truncate", "tombstone", "other-type".
  std::string_view skipped;
  /// Not empty: rows of this table ("database.table", or "database.*") went without a change of
  /// their own.
  std::string emptied;
  /// Updates in `changes` whose earlier values the message does not hold: their `before` is empty.
  std::size_t before_unknown = 0;
};

/// Values are texts as the message has them, numbers digit by digit, JSON null is SQL NULL. Throws
/// std::runtime_error that says why `text` is no message of that format. An empty text is a
/// tombstone.
[[nodiscard]] ChangeMessage read_change_message(MessageFormat format, std::string_view text);

}  // namespace millrace
