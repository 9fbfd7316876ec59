#include "testfile/compare.h"

#include <algorithm>
#include <cmath>
#include <regex>
#include <string_view>
#include <type_traits>

#include <fmt/format.h>

#include "millrace/option.h"

namespace millrace::host {

namespace {

Json to_value(const ConfigValue& value) {
  return std::visit(
      [](const auto& held) -> Json {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<T, ConfigValue::List>) {
          Json list = Json::array();
          for (const ConfigValue& element : held) list.push_back(to_value(element));
          return list;
        } else if constexpr (std::is_same_v<T, ConfigValue::Table>) {
          Json table = Json::object();
          for (const ConfigEntry& entry : held) table[entry.key] = to_value(entry.value);
          return table;
        } else {
          return held;
        }
      },
      value.value);
}

constexpr std::string_view kConditions[] = {"min", "max", "matches", "not", "one_of"};

bool is_condition(const ConfigValue::Table& table) {
  return !table.empty() && std::ranges::all_of(table, [](const ConfigEntry& entry) {
    return std::ranges::find(kConditions, entry.key) != std::end(kConditions);
  });
}

std::optional<double> number(const ConfigValue& value) {
  if (const auto* whole = std::get_if<std::int64_t>(&value.value)) {
    return static_cast<double>(*whole);
  }
  if (const auto* real = std::get_if<double>(&value.value)) return *real;
  return std::nullopt;
}

bool holds(const ConfigEntry& condition, const Json& got, double tolerance) {
  const ConfigValue& bound = condition.value;
  if (condition.key == "not") return !matches(bound, got, tolerance);
  if (condition.key == "one_of") {
    const auto* list = bound.list();
    return list != nullptr && std::ranges::any_of(*list, [&](const ConfigValue& one) {
             return matches(one, got, tolerance);
           });
  }
  if (condition.key == "matches") {
    return got.is_string() && bound.text() != nullptr &&
           std::regex_search(got.get_ref<const std::string&>(), std::regex(*bound.text()));
  }
  const auto limit = number(bound);
  if (!limit || !got.is_number()) return false;
  const auto value = got.get<double>();
  return condition.key == "min" ? value >= *limit : value <= *limit;
}

bool same_number(const ConfigValue& expected, const Json& got, double tolerance) {
  if (!got.is_number()) return false;
  const auto* whole = std::get_if<std::int64_t>(&expected.value);
  if (whole != nullptr && got.is_number_integer()) return got == Json(*whole);
  const double want = *number(expected);
  return std::abs(got.get<double>() - want) <= tolerance * std::max(1.0, std::abs(want));
}

/// How many single values of `expected` are as they should be.
std::size_t agreement(const ConfigValue& expected, const Json& got, double tolerance) {
  const auto* table = expected.table();
  if (table == nullptr || !got.is_object()) return matches(expected, got, tolerance) ? 1 : 0;
  std::size_t sum = 0;
  for (const ConfigEntry& entry : *table) {
    if (const auto found = got.find(entry.key); found != got.end()) {
      sum += agreement(entry.value, *found, tolerance);
    }
  }
  return sum;
}

class Matching {
 public:
  Matching(const ConfigValue::List& expected, const std::vector<Json>& got, double tolerance)
      : candidates_(expected.size()), owner_(got.size()) {
    for (std::size_t i = 0; i < expected.size(); ++i) {
      for (std::size_t j = 0; j < got.size(); ++j) {
        if (matches(expected[i], got[j], tolerance)) candidates_[i].push_back(j);
      }
    }
  }

  std::vector<std::optional<std::size_t>> solve() {
    for (std::size_t i = 0; i < candidates_.size(); ++i) {
      seen_.assign(owner_.size(), false);
      (void)place(i);
    }
    std::vector<std::optional<std::size_t>> places(candidates_.size());
    for (std::size_t j = 0; j < owner_.size(); ++j) {
      if (owner_[j]) places[*owner_[j]] = j;
    }
    return places;
  }

 private:
  /// An expectation that is easily met must not take the only item that another one could have:
  /// then it moves on (augmenting paths).
  bool place(std::size_t expected) {
    for (const std::size_t item : candidates_[expected]) {
      if (seen_[item]) continue;
      seen_[item] = true;
      if (!owner_[item] || place(*owner_[item])) {
        owner_[item] = expected;
        return true;
      }
    }
    return false;
  }

  std::vector<std::vector<std::size_t>> candidates_;
  std::vector<std::optional<std::size_t>> owner_;
  std::vector<bool> seen_;
};

void append_difference(std::string& out, const std::string& name, const ConfigValue& expected,
                       const Json& got, double tolerance) {
  const auto* table = expected.table();
  if (table == nullptr || !got.is_object()) {
    const std::string head = name.empty() ? name : name + " = ";
    if (matches(expected, got, tolerance)) {
      out += fmt::format("  {}{}\n", head, shown(got));
    } else {
      out += fmt::format("- {}{}\n+ {}{}\n", head, shown(expected), head, shown(got));
    }
    return;
  }
  for (const ConfigEntry& entry : *table) {
    const std::string inner = name.empty() ? entry.key : name + '.' + entry.key;
    const auto found = got.find(entry.key);
    if (found != got.end()) {
      append_difference(out, inner, entry.value, *found, tolerance);
      continue;
    }
    const std::string meant = nearest(entry.key, names_in(got));
    out += fmt::format("- {} = {}\n+ there is no field '{}'{}\n", inner, shown(entry.value),
                       entry.key, meant.empty() ? "" : fmt::format("; did you mean '{}'?", meant));
  }
}

}  // namespace

Json described(const BatchBase& batch, std::size_t position) {
  std::string json;
  batch.type().describe(batch, position, json);
  return to_json(json);
}

Json to_json(const std::string& description) {
  Json value = Json::parse(description, nullptr, false);
  return value.is_discarded() ? Json(description) : value;
}

std::vector<std::string> names_in(const Json& object) {
  std::vector<std::string> names;
  for (const auto& [name, value] : object.items()) names.push_back(name);
  return names;
}

std::string shown(const Json& value) {
  if (!value.is_object()) return value.dump(-1, ' ', false, Json::error_handler_t::replace);
  std::string out = "{";
  for (const auto& [name, inner] : value.items()) {
    out += fmt::format("{} {} = {}", out.size() == 1 ? "" : ",", name, shown(inner));
  }
  return out + " }";
}

std::string shown(const ConfigValue& value) { return shown(to_value(value)); }

bool matches(const ConfigValue& expected, const Json& got, double tolerance) {
  if (const auto* table = expected.table()) {
    if (got.is_object()) {
      return std::ranges::all_of(*table, [&](const ConfigEntry& entry) {
        const auto found = got.find(entry.key);
        return found != got.end() && matches(entry.value, *found, tolerance);
      });
    }
    return is_condition(*table) && std::ranges::all_of(*table, [&](const ConfigEntry& entry) {
             return holds(entry, got, tolerance);
           });
  }
  if (const auto* list = expected.list()) {
    if (!got.is_array() || got.size() != list->size()) return false;
    for (std::size_t i = 0; i < list->size(); ++i) {
      if (!matches((*list)[i], got[i], tolerance)) return false;
    }
    return true;
  }
  if (const auto* text = expected.text()) return got.is_string() && got == *text;
  if (const auto* truth = std::get_if<bool>(&expected.value)) {
    return got.is_boolean() && got == *truth;
  }
  return same_number(expected, got, tolerance);
}

void check_expected(const ConfigValue& expected, Report& report) {
  if (const auto* list = expected.list()) {
    for (const ConfigValue& one : *list) check_expected(one, report);
    return;
  }
  const auto* table = expected.table();
  if (table == nullptr) return;
  const bool condition = is_condition(*table);
  for (const ConfigEntry& entry : *table) {
    if (condition && (entry.key == "min" || entry.key == "max") && !number(entry.value)) {
      report.add(entry.value.at, fmt::format("'{}' is {}", entry.key, kind_of(entry.value)),
                 "a number");
    } else if (condition && entry.key == "one_of" && entry.value.list() == nullptr) {
      report.add(entry.value.at, fmt::format("'one_of' is {}", kind_of(entry.value)), "a list");
    } else if (condition && entry.key == "matches") {
      try {
        if (entry.value.text() == nullptr)
          throw std::regex_error(std::regex_constants::error_type());
        (void)std::regex(*entry.value.text());
      } catch (const std::regex_error& error) {
        report.add(entry.value.at, fmt::format("{} is no regular expression", shown(entry.value)),
                   "an ECMAScript regular expression in quotes");
      }
    } else {
      check_expected(entry.value, report);
    }
  }
}

std::vector<std::optional<std::size_t>> find_items(const ConfigValue::List& expected,
                                                   const std::vector<Json>& got, bool ordered,
                                                   double tolerance) {
  if (!ordered) return Matching(expected, got, tolerance).solve();
  std::vector<std::optional<std::size_t>> places;
  std::size_t next = 0;
  for (const ConfigValue& one : expected) {
    std::size_t at = next;
    while (at < got.size() && !matches(one, got[at], tolerance)) ++at;
    if (at < got.size()) next = at + 1;
    places.push_back(at < got.size() ? std::optional(at) : std::nullopt);
  }
  return places;
}

std::optional<std::size_t> nearest_item(const ConfigValue& expected, const std::vector<Json>& got,
                                        const std::vector<bool>& taken, double tolerance) {
  std::optional<std::size_t> best;
  std::size_t best_agreement = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (taken[i]) continue;
    const std::size_t common = agreement(expected, got[i], tolerance);
    if (common > best_agreement) {
      best = i;
      best_agreement = common;
    }
  }
  return best;
}

std::string difference(const ConfigValue& expected, const Json& got, double tolerance) {
  std::string out;
  append_difference(out, {}, expected, got, tolerance);
  return out;
}

}  // namespace millrace::host
