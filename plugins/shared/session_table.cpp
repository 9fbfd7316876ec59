#include "session_table.h"

#include <cctype>

#include "millrace/error.h"

namespace millrace {

void refuse_faults(const std::string& table, const std::vector<std::string>& faults) {
  if (faults.empty()) return;
  throw ConfigError("table",
                    fmt::format("the table '{}' does not fit: {}", table, fmt::join(faults, "; ")));
}

void check_table_name(std::string_view table, std::size_t longest, Findings& findings) {
  const bool plain = std::ranges::all_of(table, [](unsigned char c) {
    return (c < 0x80 && std::isalnum(c) != 0) || c == '_' || c == '$' || c == '-';
  });
  if (!plain || table.empty() || table.size() > longest) {
    findings.add("table",
                 fmt::format("expected a name of at most {} letters, digits, _, $ and -", longest));
  }
}

}  // namespace millrace
