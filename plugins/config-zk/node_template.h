#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

/// A text with `{column}` in it. Braces around anything but letters, digits, '_' and '-' are text,
/// so that JSON can be written as it is.
class NodeTemplate {
 public:
  NodeTemplate() = default;
  explicit NodeTemplate(std::string_view text);

  /// `value` gives what stands for a column.
  [[nodiscard]] std::string render(
      const std::function<std::string(const std::string& column)>& value) const;
  /// Each once, in the order of the text.
  [[nodiscard]] std::vector<std::string> columns() const;

  struct Piece {
    std::string text;    ///< comes first
    std::string column;  ///< empty at the end
  };
  [[nodiscard]] const std::vector<Piece>& pieces() const noexcept { return pieces_; }

 private:
  std::vector<Piece> pieces_;
};

}  // namespace millrace
