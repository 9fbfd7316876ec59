#include "statement.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string>

namespace millrace {

namespace {

bool is_word(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return std::isalnum(byte) != 0 || c == '_' || c == '$' || byte >= 0x80U;
}

/// Without blanks and comments at its beginning.
std::string_view trimmed(std::string_view text) {
  while (!text.empty()) {
    if (std::isspace(static_cast<unsigned char>(text.front())) != 0 || text.front() == '(') {
      text.remove_prefix(1);
    } else if (text.starts_with("/*")) {
      const std::size_t end = text.find("*/");
      text.remove_prefix(end == std::string_view::npos ? text.size() : end + 2);
    } else if (text.starts_with("--") || text.starts_with('#')) {
      const std::size_t end = text.find('\n');
      text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    } else {
      break;
    }
  }
  return text;
}

/// The word at the beginning in capitals, which is taken away.
std::string cut_word(std::string_view& text) {
  text = trimmed(text);
  std::string word;
  while (!text.empty() && is_word(text.front())) {
    word += static_cast<char>(std::toupper(static_cast<unsigned char>(text.front())));
    text.remove_prefix(1);
  }
  return word;
}

}  // namespace

StatementKind statement_kind(std::string_view statement) {
  constexpr std::array kChanges{"INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD",
                                "WITH",   "CALL",   "SELECT", "DO"};
  constexpr std::array kControl{"BEGIN", "START", "SAVEPOINT", "RELEASE", "XA"};
  const std::string word = cut_word(statement);
  if (word == "COMMIT") return StatementKind::commit;
  if (word == "ROLLBACK") {
    const std::string next = cut_word(statement);
    const bool partly = next == "TO" || (next == "WORK" && cut_word(statement) == "TO");
    return partly ? StatementKind::control : StatementKind::roll_back;
  }
  if (std::ranges::find(kControl, word) != kControl.end()) return StatementKind::control;
  if (std::ranges::find(kChanges, word) != kChanges.end()) return StatementKind::change;
  return StatementKind::ddl;
}

bool has_word(std::string_view text, std::string_view word) {
  const auto same = [](char a, char b) {
    return std::tolower(static_cast<unsigned char>(a)) ==
           std::tolower(static_cast<unsigned char>(b));
  };
  for (auto from = text.begin();;) {
    const auto found = std::search(from, text.end(), word.begin(), word.end(), same);
    if (found == text.end()) return false;
    const auto end = found + static_cast<std::ptrdiff_t>(word.size());
    if ((found == text.begin() || !is_word(*(found - 1))) &&
        (end == text.end() || !is_word(*end))) {
      return true;
    }
    from = found + 1;
  }
}

}  // namespace millrace
