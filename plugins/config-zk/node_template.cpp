#include "node_template.h"

#include <algorithm>

namespace millrace {

namespace {

bool is_name(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
}

}  // namespace

NodeTemplate::NodeTemplate(std::string_view text) {
  std::string before;
  while (!text.empty()) {
    const std::size_t end = text.front() == '{' ? text.find('}') : std::string_view::npos;
    if (end != std::string_view::npos && is_name(text.substr(1, end - 1))) {
      pieces_.push_back({std::move(before), std::string(text.substr(1, end - 1))});
      before.clear();
      text.remove_prefix(end + 1);
    } else {
      before += text.front();
      text.remove_prefix(1);
    }
  }
  if (!before.empty()) pieces_.push_back({std::move(before), {}});
}

std::string NodeTemplate::render(
    const std::function<std::string(const std::string& column)>& value) const {
  std::string text;
  for (const Piece& piece : pieces_) {
    text += piece.text;
    if (!piece.column.empty()) text += value(piece.column);
  }
  return text;
}

std::vector<std::string> NodeTemplate::columns() const {
  std::vector<std::string> names;
  for (const Piece& piece : pieces_) {
    if (!piece.column.empty() && std::ranges::find(names, piece.column) == names.end()) {
      names.push_back(piece.column);
    }
  }
  return names;
}

}  // namespace millrace
