#pragma once

#include <charconv>
#include <concepts>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace millrace::json {

/// Appends `text` as a JSON string (RFC 8259). Bytes that are not valid UTF-8 become U+FFFD.
void append_string(std::string& json, std::string_view text);

template <std::integral T>
void append_number(std::string& json, T value) {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof digits, value);
  json.append(digits, end.ptr);
}

/// Appends `bytes` in base64 (RFC 4648, with padding), without quotes.
void append_base64(std::string& json, std::span<const std::byte> bytes);

/// Writes the members of one object, commas included. The destructor closes the brace.
class Object {
 public:
  explicit Object(std::string& json) : json_(json) { json_ += '{'; }
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  ~Object() { json_ += '}'; }

  void member(std::string_view name, std::string_view value) { append_string(key(name), value); }
  void member(std::string_view name, const char* value) { append_string(key(name), value); }
  void member(std::string_view name, bool value) { key(name) += value ? "true" : "false"; }
  template <std::integral T>
  requires(!std::same_as<T, bool>) void member(std::string_view name, T value) {
    append_number(key(name), value);
  }
  /// `value` must be JSON already.
  void raw(std::string_view name, std::string_view value) { key(name) += value; }
  /// Writes the name and the colon; the caller appends one JSON value.
  std::string& key(std::string_view name);

 private:
  std::string& json_;
  bool first_ = true;
};

}  // namespace millrace::json
