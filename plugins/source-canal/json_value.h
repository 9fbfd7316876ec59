#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace millrace {

/// A JSON value whose numbers are kept as the text that stood there, and whose members keep their
/// order.
class JsonValue {
 public:
  enum class Kind : std::uint8_t { null, boolean, number, string, array, object };
  using Member = std::pair<std::string, JsonValue>;

  JsonValue() = default;
  JsonValue(Kind kind, std::string text) : kind_(kind), text_(std::move(text)) {}
  explicit JsonValue(Kind kind) : kind_(kind) {}

  [[nodiscard]] Kind kind() const noexcept { return kind_; }
  [[nodiscard]] bool is(Kind kind) const noexcept { return kind_ == kind; }
  /// Of a string its content; of a number or boolean what stood there; of the others JSON.
  [[nodiscard]] std::string text() const;
  /// A string's content, without a copy; empty for all other kinds.
  [[nodiscard]] std::string_view string() const noexcept;
  /// The member of that name; a null value if there is none or this is no object.
  [[nodiscard]] const JsonValue& operator[](std::string_view name) const noexcept;

  std::vector<Member> members;      ///< of an object
  std::vector<JsonValue> elements;  ///< of an array

 private:
  void append(std::string& json) const;

  Kind kind_ = Kind::null;
  std::string text_;
};

/// Throws std::runtime_error that says what is wrong and where. Deeper nesting than any change
/// event has is refused, so that no message can exhaust the stack.
[[nodiscard]] JsonValue parse_json(std::string_view text);

}  // namespace millrace
