#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "millrace/batch.h"

#include "config/report.h"
#include "config/value.h"

namespace millrace::host {

/// Keeps the order of an item's fields.
using Json = nlohmann::ordered_json;

/// How far a number may lie from the expected one, as a share of it (of 1, if it is smaller).
inline constexpr double kTolerance = 1e-6;

/// An item as its type describes it.
[[nodiscard]] Json described(const BatchBase& batch, std::size_t position);
/// What is no JSON is a text.
[[nodiscard]] Json to_json(const std::string& description);
/// The names of its fields.
[[nodiscard]] std::vector<std::string> names_in(const Json& object);
/// As `name = value` would have it, for messages.
[[nodiscard]] std::string shown(const Json& value);
[[nodiscard]] std::string shown(const ConfigValue& value);

/// Whether `got` is as expected. Of a table only the fields that are named are compared; a table of
/// nothing but `min`, `max`, `matches`, `not` and `one_of` is a condition for a value that is no
/// table.
[[nodiscard]] bool matches(const ConfigValue& expected, const Json& got,
                           double tolerance = kTolerance);

/// Reports conditions that cannot be meant.
void check_expected(const ConfigValue& expected, Report& report);

/// For each of `expected` the place of the item that answers for it, each item for one of them:
/// as many as can be found. `ordered`: in the order of `got`.
[[nodiscard]] std::vector<std::optional<std::size_t>> find_items(const ConfigValue::List& expected,
                                                                 const std::vector<Json>& got,
                                                                 bool ordered, double tolerance);

/// The item that has most in common with `expected`, of those that `taken` does not mark; nothing
/// if none has anything.
[[nodiscard]] std::optional<std::size_t> nearest_item(const ConfigValue& expected,
                                                      const std::vector<Json>& got,
                                                      const std::vector<bool>& taken,
                                                      double tolerance);

/// Lines that tell expected (-) from got (+), what agrees without a sign; only what is expected.
[[nodiscard]] std::string difference(const ConfigValue& expected, const Json& got,
                                     double tolerance);

}  // namespace millrace::host
