#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "millrace/verdict.h"

namespace millrace {

enum class RowFormat : std::uint8_t { jsonl, csv, table };

/// The line that begins a file of that format; empty for jsonl.
[[nodiscard]] std::string header_line(RowFormat format);

/// Appends one line. The fields and their order: session protocol src src_port dst dst_port
/// first_seen last_seen packets bytes payload_bytes reason label confidence model.
void append_row(RowFormat format, const Verdict& verdict, std::string& out);

/// How many sessions have which label, and how sure the model was on average.
class LabelSummary {
 public:
  void add(const Verdict& verdict);
  [[nodiscard]] std::string text() const;

 private:
  struct Line {
    std::uint64_t sessions = 0;
    double confidence = 0;
  };
  std::map<std::string, Line, std::less<>> lines_;
  std::uint64_t sessions_ = 0;
};

}  // namespace millrace
