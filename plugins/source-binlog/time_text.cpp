#include "time_text.h"

#include <array>
#include <chrono>
#include <stdexcept>

#include <fmt/format.h>

namespace millrace {

namespace {

constexpr unsigned kMostDigits = 6;

/// Bytes that the fraction takes: two digits in each.
std::size_t fraction_bytes(unsigned digits) {
  if (digits > kMostDigits) throw std::runtime_error("a time in the event has too many digits");
  return (digits + 1) / 2;
}

std::string fraction_text(std::uint64_t fraction, unsigned digits) {
  if (digits == 0) return {};
  const std::string text = fmt::format("{:0{}}", fraction, 2 * fraction_bytes(digits));
  return "." + text.substr(0, digits);
}

std::string seconds_text(std::uint64_t seconds, std::uint64_t fraction, unsigned digits) {
  constexpr std::string_view kNone = "0000-00-00 00:00:00";
  if (seconds == 0) return std::string(kNone) + fraction_text(0, digits);
  const std::chrono::sys_seconds time{std::chrono::seconds(seconds)};
  const auto day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss<std::chrono::seconds> clock(time - day);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02}{}", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                     clock.hours().count(), clock.minutes().count(), clock.seconds().count(),
                     fraction_text(fraction, digits));
}

}  // namespace

std::string date_text(ByteReader& reader) {
  constexpr std::size_t kBytes = 3;
  const std::uint64_t date = reader.little(kBytes);
  return fmt::format("{:04}-{:02}-{:02}", date >> 9U, date >> 5U & 15U, date & 31U);
}

std::string year_text(ByteReader& reader) {
  constexpr std::uint64_t kFirst = 1900;
  const std::uint64_t year = reader.little(1);
  return fmt::format("{:04}", year == 0 ? 0 : kFirst + year);
}

std::string time_text(ByteReader& reader, unsigned digits) {
  constexpr std::size_t kBytes = 3;
  constexpr std::int64_t kZero = 0x800000;
  const std::size_t fraction = fraction_bytes(digits);
  const auto shift = static_cast<unsigned>(8 * fraction);
  std::int64_t value = static_cast<std::int64_t>(reader.big(kBytes + fraction)) - (kZero << shift);
  const bool negative = value < 0;
  if (negative) value = -value;
  const auto whole = static_cast<std::uint64_t>(value >> shift);
  const auto rest = static_cast<std::uint64_t>(value) & ((std::uint64_t{1} << shift) - 1);
  return fmt::format("{}{:02}:{:02}:{:02}{}", negative ? "-" : "", whole >> 12U & 1023U,
                     whole >> 6U & 63U, whole & 63U, fraction_text(rest, digits));
}

std::string datetime_text(ByteReader& reader, unsigned digits) {
  constexpr std::size_t kBytes = 5;
  constexpr std::uint64_t kZero = 0x8000000000;
  constexpr std::uint64_t kMonths = 13;
  const std::uint64_t stored = reader.big(kBytes);
  if (stored < kZero) throw std::runtime_error("a DATETIME in the event is none");
  const std::uint64_t value = stored - kZero;
  const std::uint64_t month = value >> 22U;
  const std::string fraction = fraction_text(reader.big(fraction_bytes(digits)), digits);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02}{}", month / kMonths, month % kMonths,
                     value >> 17U & 31U, value >> 12U & 31U, value >> 6U & 63U, value & 63U,
                     fraction);
}

std::string timestamp_text(ByteReader& reader, unsigned digits) {
  constexpr std::size_t kBytes = 4;
  const std::uint64_t seconds = reader.big(kBytes);
  return seconds_text(seconds, reader.big(fraction_bytes(digits)), digits);
}

std::string old_time_text(ByteReader& reader) {
  constexpr std::size_t kBytes = 3;
  constexpr std::int64_t kNegative = 0x800000;
  auto value = static_cast<std::int64_t>(reader.little(kBytes));
  const bool negative = value >= kNegative;
  if (negative) value = 2 * kNegative - value;
  return fmt::format("{}{:02}:{:02}:{:02}", negative ? "-" : "", value / 10000, value / 100 % 100,
                     value % 100);
}

std::string old_datetime_text(ByteReader& reader) {
  constexpr std::size_t kBytes = 8;
  const std::string digits = fmt::format("{:014}", reader.little(kBytes));
  if (digits.size() != 14) throw std::runtime_error("a DATETIME in the event is none");
  return fmt::format("{}-{}-{} {}:{}:{}", digits.substr(0, 4), digits.substr(4, 2),
                     digits.substr(6, 2), digits.substr(8, 2), digits.substr(10, 2),
                     digits.substr(12, 2));
}

std::string old_timestamp_text(ByteReader& reader) {
  constexpr std::size_t kBytes = 4;
  return seconds_text(reader.little(kBytes), 0, 0);
}

}  // namespace millrace
