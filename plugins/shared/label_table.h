#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "millrace/session.h"

namespace millrace {

/// What is wrong with a text as the name of a class, or empty: a name is one line of UTF-8 without
/// control characters and without spaces at its ends, so that every file format can hold it.
[[nodiscard]] std::string label_problem(std::string_view label);

/// Labels of sessions from a CSV file (RFC 4180, comma, with a header), in memory.
///
/// A session is named by the column `session` (its id), or, where that is missing, by the columns
/// protocol, src, src_port, dst and dst_port (either direction) and, if it is there, first_seen:
/// then a row holds from that time until the next row of the same five-tuple. These are the names
/// under which sink-file writes them. Other columns are passed over, and so are rows without a
/// label.
class LabelTable {
 public:
  struct Columns {
    std::string label = "label";
    bool by_session = true;  ///< whether the column `session` may be used
  };

  LabelTable() = default;
  /// Throws ConfigError("labels", "FILE:LINE: ..."), or "label_column". More than `most` rows are
  /// an error too.
  LabelTable(const std::string& path, const Columns& columns, std::size_t most);

  /// Null if the table does not name the session.
  [[nodiscard]] const std::string* find(const SessionInfo& session) const;
  [[nodiscard]] const std::string* find(const FiveTuple& key, Timestamp time) const;

 private:
  class Reader;
  using Begin = std::pair<Timestamp, std::uint32_t>;  ///< from when on which label holds

  std::vector<std::string> labels_;
  std::map<SessionId, std::uint32_t> by_id_;
  std::map<FiveTuple, std::vector<Begin>> by_key_;  ///< in the order of time
};

}  // namespace millrace
