#include "millrace/json.h"

#include <cstdint>

namespace millrace::json {

namespace {

/// Length of the valid UTF-8 sequence that `text` begins with (RFC 3629), 0 if there is none.
std::size_t sequence_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const std::uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xC2 && lead < 0xE0   ? 2
                             : lead >= 0xE0 && lead < 0xF0 ? 3
                             : lead >= 0xF0 && lead < 0xF5 ? 4
                                                           : 0;
  if (length == 0 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80) return 0;
  }
  // Overlong forms, surrogates and what lies beyond U+10FFFF.
  if ((lead == 0xE0 && byte(1) < 0xA0) || (lead == 0xED && byte(1) > 0x9F) ||
      (lead == 0xF0 && byte(1) < 0x90) || (lead == 0xF4 && byte(1) > 0x8F)) {
    return 0;
  }
  return length;
}

}  // namespace

void append_string(std::string& json, std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  json += '"';
  while (!text.empty()) {
    const auto c = static_cast<unsigned char>(text.front());
    std::size_t taken = 1;
    if (c == '"' || c == '\\') {
      json += '\\';
      json += text.front();
    } else if (c == '\n') {
      json += "\\n";
    } else if (c == '\t') {
      json += "\\t";
    } else if (c == '\r') {
      json += "\\r";
    } else if (c < 0x20) {
      json += "\\u00";
      json += kHex[c >> 4U];
      json += kHex[c & 0xFU];
    } else {
      taken = sequence_length(text);
      json += taken == 0 ? std::string_view("\xEF\xBF\xBD") : text.substr(0, taken);
      if (taken == 0) taken = 1;
    }
    text.remove_prefix(taken);
  }
  json += '"';
}

void append_base64(std::string& json, std::span<const std::byte> bytes) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    for (std::size_t j = 0; j < 3; ++j) {
      group =
          group << 8U | (i + j < bytes.size() ? std::to_integer<std::uint32_t>(bytes[i + j]) : 0);
    }
    for (std::size_t j = 0; j < 4; ++j) {
      json += i + j > bytes.size() ? '=' : kDigits[group >> (18 - 6 * j) & 0x3FU];
    }
  }
}

std::string& Object::key(std::string_view name) {
  if (!first_) json_ += ',';
  first_ = false;
  append_string(json_, name);
  json_ += ':';
  return json_;
}

}  // namespace millrace::json
