#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "millrace/verdict.h"

namespace millrace {

enum class RowFormat : std::uint8_t { jsonl, csv, table };

/// What stands before the first row, with its line end; empty for jsonl.
[[nodiscard]] std::string header_line(RowFormat format);
[[nodiscard]] std::string_view line_end(RowFormat format);
/// Whether a file with this first line (without its end) can be continued in that format.
[[nodiscard]] bool continues(RowFormat format, std::string_view first_line);

/// Appends one row. The fields and their order: session agent protocol src src_port dst dst_port
/// epoch first_seen last_seen packets bytes payload_bytes reason label confidence model. A table
/// leaves out some of them.
void append_row(RowFormat format, const Verdict& verdict, std::string& out);

/// `text` with '?' for every control character: a label must not steer a terminal.
[[nodiscard]] std::string printable(std::string_view text);

/// How many sessions have which label, and how sure the model was on average.
class LabelSummary {
 public:
  void add(const Verdict& verdict);
  /// An empty line, and a table with the most frequent label first.
  [[nodiscard]] std::string text() const;

 private:
  struct Line {
    std::uint64_t sessions = 0;
    double confidence = 0;   ///< sum over `sure`
    std::uint64_t sure = 0;  ///< sessions that have a confidence
  };
  std::map<std::string, Line, std::less<>> lines_;
  std::uint64_t sessions_ = 0;
};

}  // namespace millrace
