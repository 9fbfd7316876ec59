#include "millrace/option.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <span>

namespace millrace {

namespace {

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};

constexpr std::array<Unit, 7> kDurationUnits{{{"ns", 1},
                                              {"us", 1000},
                                              {"ms", 1000000},
                                              {"s", 1000000000},
                                              {"min", 60000000000},
                                              {"h", 3600000000000},
                                              {"d", 86400000000000}}};
constexpr std::array<Unit, 9> kSizeUnits{{{"B", 1},
                                          {"KiB", 1ULL << 10U},
                                          {"MiB", 1ULL << 20U},
                                          {"GiB", 1ULL << 30U},
                                          {"TiB", 1ULL << 40U},
                                          {"kB", 1000},
                                          {"MB", 1000000},
                                          {"GB", 1000000000},
                                          {"TB", 1000000000000}}};

/// "1.5s" -> 1500000000; nothing if the text is no number with one of the units.
std::optional<std::uint64_t> scaled(std::string_view text, std::span<const Unit> units) {
  double number = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (error != std::errc() || number < 0) return std::nullopt;
  std::string_view name(end, static_cast<std::size_t>(text.data() + text.size() - end));
  while (name.starts_with(' ')) name.remove_prefix(1);
  const auto unit = std::ranges::find(units, name, &Unit::name);
  if (unit == units.end()) return std::nullopt;
  // Whole numbers are kept exact; a fraction is rounded to the smallest unit.
  std::uint64_t whole = 0;
  const auto [whole_end, whole_error] =
      std::from_chars(text.data(), text.data() + text.size(), whole);
  constexpr double kMax = 9.2e18;
  if (number * static_cast<double>(unit->factor) > kMax) return std::nullopt;
  if (whole_error == std::errc() && whole_end == end) return whole * unit->factor;
  return static_cast<std::uint64_t>(std::llround(number * static_cast<double>(unit->factor)));
}

/// The largest unit that leaves no remainder.
std::string print_scaled(std::uint64_t value, std::span<const Unit> units) {
  const Unit* best = units.data();
  for (const Unit& unit : units) {
    if (value % unit.factor == 0 && unit.factor > best->factor && value != 0) best = &unit;
  }
  return '"' + std::to_string(value / best->factor) + std::string(best->name) + '"';
}

std::size_t distance(std::string_view a, std::string_view b) {
  // Optimal string alignment: an exchange of neighbours counts as one step.
  std::vector<std::size_t> two(b.size() + 1);
  std::vector<std::size_t> one(b.size() + 1);
  std::vector<std::size_t> now(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) one[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    now[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = a[i - 1] == b[j - 1] ? 0 : 1;
      now[j] = std::min({one[j] + 1, now[j - 1] + 1, one[j - 1] + change});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        now[j] = std::min(now[j], two[j - 2] + 1);
      }
    }
    std::swap(two, one);
    std::swap(one, now);
  }
  return one[b.size()];
}

const std::string* text_of(const OptionValue& value) {
  return std::get_if<std::string>(&value.value);
}

}  // namespace

std::string nearest(std::string_view name, const std::vector<std::string>& names) {
  constexpr std::size_t kFewest = 3;  // of fewer letters, too many names are made by one change
  if (name.size() < kFewest) return {};
  const std::string* best = nullptr;
  std::size_t best_distance = std::max<std::size_t>(1, name.size() / 3) + 1;
  for (const std::string& candidate : names) {
    std::size_t steps = distance(name, candidate);
    // A name that was only begun, or the last part of "plugin.stage", is near as well.
    if (steps >= best_distance && (candidate.starts_with(name) || candidate.ends_with(name))) {
      steps = best_distance - 1;
    }
    if (steps < best_distance) {
      best = &candidate;
      best_distance = steps;
    }
  }
  return best == nullptr ? std::string() : *best;
}

namespace detail {

std::optional<OptionError> read(const OptionValue& from, bool& to) {
  const auto* value = std::get_if<bool>(&from.value);
  if (value == nullptr) return OptionError{"true or false", ""};
  to = *value;
  return std::nullopt;
}

std::optional<OptionError> read(const OptionValue& from, double& to) {
  if (const auto* whole = std::get_if<std::int64_t>(&from.value)) {
    to = static_cast<double>(*whole);
  } else if (const auto* value = std::get_if<double>(&from.value); value && std::isfinite(*value)) {
    to = *value;
  } else {
    return OptionError{"a number", ""};
  }
  return std::nullopt;
}

std::optional<OptionError> read_integer(const OptionValue& from, std::int64_t low,
                                        std::uint64_t high, std::int64_t& to) {
  const auto* value = std::get_if<std::int64_t>(&from.value);
  if (value == nullptr) return OptionError{"an integer", ""};
  if (*value < low || (*value > 0 && static_cast<std::uint64_t>(*value) > high)) {
    return OptionError{"an integer from " + std::to_string(low) + " to " + std::to_string(high),
                       ""};
  }
  to = *value;
  return std::nullopt;
}

std::optional<OptionError> read(const OptionValue& from, std::string& to) {
  const std::string* text = text_of(from);
  if (text == nullptr) return OptionError{"text in quotes", ""};
  to = *text;
  return std::nullopt;
}

std::optional<OptionError> read(const OptionValue& from, Duration& to) {
  const std::string* text = text_of(from);
  const auto value = text != nullptr ? scaled(*text, kDurationUnits) : std::nullopt;
  if (!value) {
    return OptionError{R"(a duration with its unit, such as "250ms", "10s", "5min", "1h" or "1d")",
                       ""};
  }
  to = Duration(static_cast<Duration::rep>(*value));
  return std::nullopt;
}

std::optional<OptionError> read(const OptionValue& from, ByteSize& to) {
  if (const auto* whole = std::get_if<std::int64_t>(&from.value); whole && *whole >= 0) {
    to = {static_cast<std::uint64_t>(*whole)};
    return std::nullopt;
  }
  const std::string* text = text_of(from);
  const auto value = text != nullptr ? scaled(*text, kSizeUnits) : std::nullopt;
  if (!value) return OptionError{R"(a size such as "64KiB", "1MiB" or "2GB", or bytes)", ""};
  to = {*value};
  return std::nullopt;
}

std::optional<OptionError> read(const OptionValue& from, std::vector<std::string>& to) {
  if (const std::string* text = text_of(from)) {
    to = {*text};
    return std::nullopt;
  }
  const auto* list = std::get_if<OptionValue::List>(&from.value);
  if (list == nullptr) return OptionError{"text in quotes, or a list of texts", ""};
  std::vector<std::string> read_list;
  for (const OptionValue& element : *list) {
    const std::string* text = text_of(element);
    if (text == nullptr) return OptionError{"a list of nothing but texts", ""};
    read_list.push_back(*text);
  }
  to = std::move(read_list);
  return std::nullopt;
}

std::optional<OptionError> read(const OptionValue& from, std::map<std::string, std::string>& to) {
  const auto* table = std::get_if<OptionValue::Table>(&from.value);
  if (table == nullptr) return OptionError{R"(a table such as { name = "value" })", ""};
  std::map<std::string, std::string> read_table;
  for (const auto& [name, element] : *table) {
    const std::string* text = text_of(element);
    if (text == nullptr) return OptionError{"a table of nothing but texts", ""};
    read_table.emplace(name, *text);
  }
  to = std::move(read_table);
  return std::nullopt;
}

std::string print(bool value) { return value ? "true" : "false"; }

std::string print(double value) {
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof digits, value);
  return {digits, end.ptr};
}

std::string print(const std::string& value) {
  return value.empty() ? std::string() : '"' + value + '"';
}
std::string print(Duration value) {
  return print_scaled(static_cast<std::uint64_t>(value.count()), kDurationUnits);
}
std::string print(ByteSize value) {
  return print_scaled(value.bytes, std::span(kSizeUnits).first(5));
}

std::string print(const std::vector<std::string>& value) {
  std::string list;
  for (const std::string& element : value) {
    list += (list.empty() ? "[\"" : ", \"") + element + '"';
  }
  return list.empty() ? list : list + ']';
}

std::string print(const std::map<std::string, std::string>& value) {
  std::string table;
  for (const auto& [name, element] : value) {
    table += table.empty() ? "{ " : ", ";
    table.append(name).append(" = \"").append(element) += '"';
  }
  return table.empty() ? table : table + " }";
}

}  // namespace detail

}  // namespace millrace
