#pragma once

#include <cstdint>
#include <string_view>

namespace millrace {

/// What the text of a query event does.
enum class StatementKind : std::uint8_t {
  commit,
  roll_back,
  control,  ///< BEGIN, savepoints, XA
  change,   ///< of rows, logged as the statement itself
  ddl,
};

[[nodiscard]] StatementKind statement_kind(std::string_view statement);

/// Whether the text has the word, in any case; what is not a letter, digit or _ ends a word.
[[nodiscard]] bool has_word(std::string_view text, std::string_view word);

}  // namespace millrace
