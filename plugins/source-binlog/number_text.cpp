#include "number_text.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <stdexcept>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "byte_reader.h"

namespace millrace {

namespace {

constexpr unsigned kGroup = 9;  // digits in a number of four bytes
constexpr std::size_t kGroupBytes = 4;
constexpr std::array<std::size_t, kGroup + 1> kBytesOfDigits{0, 1, 1, 2, 2, 3, 3, 4, 4, 4};

std::size_t part_size(unsigned digits) {
  return digits / kGroup * kGroupBytes + kBytesOfDigits.at(digits % kGroup);
}

std::string group_text(ByteReader& reader, unsigned digits) {
  const std::uint64_t value = reader.big(kBytesOfDigits.at(digits));
  std::string text = fmt::format("{:0{}}", value, digits);
  if (text.size() != digits) throw std::runtime_error("a DECIMAL in the event is none");
  return text;
}

/// `d.ddde[+-]XX` as the server writes it: plain as long as the point is near.
std::string plain(std::string_view scientific) {
  constexpr int kFarLeft = -14;
  constexpr int kFarRight = 15;
  std::string text;
  if (scientific.front() == '-') {
    text = "-";
    scientific.remove_prefix(1);
  }
  const std::size_t e = scientific.find('e');
  int exponent = 0;
  const std::size_t sign = scientific[e + 1] == '+' ? e + 2 : e + 1;
  std::from_chars(scientific.data() + sign, scientific.data() + scientific.size(), exponent);
  std::string digits;
  for (const char c : scientific.substr(0, e)) {
    if (c != '.') digits += c;
  }
  while (digits.size() > 1 && digits.back() == '0') digits.pop_back();
  const int point = exponent + 1;  // how many digits are before it
  if (point < kFarLeft || point > kFarRight) {
    text += digits[0];
    if (digits.size() > 1) text += "." + digits.substr(1);
    return text + fmt::format("e{}", exponent);
  }
  if (point <= 0) return text + "0." + std::string(static_cast<std::size_t>(-point), '0') + digits;
  const auto before = static_cast<std::size_t>(point);
  if (digits.size() <= before) return text + digits + std::string(before - digits.size(), '0');
  return text + digits.substr(0, before) + "." + digits.substr(before);
}

}  // namespace

std::size_t decimal_size(unsigned precision, unsigned scale) {
  return part_size(precision - scale) + part_size(scale);
}

std::string decimal_text(std::span<const std::uint8_t> bytes, unsigned precision, unsigned scale) {
  constexpr std::uint8_t kPositive = 0x80;
  std::vector<std::uint8_t> plain_bytes(bytes.begin(), bytes.end());
  if (plain_bytes.empty()) throw std::runtime_error("a DECIMAL in the event is none");
  const bool negative = (plain_bytes[0] & kPositive) == 0;
  plain_bytes[0] ^= kPositive;
  if (negative) {
    for (std::uint8_t& byte : plain_bytes) byte = static_cast<std::uint8_t>(~byte);
  }
  ByteReader reader(plain_bytes);
  std::string digits;
  const unsigned before = precision - scale;
  if (before % kGroup != 0) digits += group_text(reader, before % kGroup);
  for (unsigned i = 0; i < before / kGroup; ++i) digits += group_text(reader, kGroup);
  digits.erase(0, digits.find_first_not_of('0'));
  if (digits.empty()) digits = "0";
  if (scale > 0) digits += '.';
  for (unsigned i = 0; i < scale / kGroup; ++i) digits += group_text(reader, kGroup);
  if (scale % kGroup != 0) digits += group_text(reader, scale % kGroup);
  return negative ? "-" + digits : digits;
}

std::string double_text(double value) {
  std::array<char, 64> text{};
  const auto [end, error] =
      std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::scientific);
  if (error != std::errc() || !std::isfinite(value)) {
    throw std::runtime_error("a DOUBLE in the event is none");
  }
  return plain({text.data(), static_cast<std::size_t>(end - text.data())});
}

std::string float_text(float value) {
  if (!std::isfinite(value)) throw std::runtime_error("a FLOAT in the event is none");
  return plain(fmt::format("{:.5e}", static_cast<double>(value)));
}

}  // namespace millrace
