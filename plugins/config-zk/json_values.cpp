#include "json_values.h"

#include <algorithm>
#include <set>
#include <stdexcept>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "millrace/text_depth.h"

#include "toml_values.h"

namespace millrace {

namespace {

using Values = std::map<std::string, std::string>;

void collect(const nlohmann::json& object, const std::string& prefix, std::string_view name,
             Values& values) {
  for (const auto& [key, member] : object.items()) {
    const std::string full = prefix + key;
    if (member.is_null()) continue;
    if (member.is_object()) {
      collect(member, full + '.', name, values);
      continue;
    }
    if (member.is_array()) {
      throw std::runtime_error(
          fmt::format("{}: '{}' is a list; expected a text, a number, true or false", name, full));
    }
    if (!values.emplace(full, member.is_string() ? member.get<std::string>() : member.dump())
             .second) {
      throw std::runtime_error(fmt::format("{}: '{}' is there twice", name, full));
    }
  }
}

/// The library's text without its own numbers and places.
std::string reason(const nlohmann::json::parse_error& error) {
  std::string text = error.what();
  const std::size_t column = text.find("column ");
  if (const std::size_t colon = text.find(": ", column == std::string::npos ? 0 : column);
      colon != std::string::npos) {
    text.erase(0, colon + 2);
  }
  return text;
}

}  // namespace

Values read_json_values(std::string_view text, std::string_view name) {
  if (const auto fault = json_fault(text)) {
    throw std::runtime_error(
        fmt::format("{}:{}:{}: {}", name, fault->line, fault->column, fault->message));
  }
  nlohmann::json object;
  try {
    object = nlohmann::json::parse(text);
  } catch (const nlohmann::json::parse_error& error) {
    const std::string_view before = text.substr(0, error.byte > 0 ? error.byte - 1 : 0);
    const std::size_t line_start = before.rfind('\n');
    throw std::runtime_error(
        fmt::format("{}:{}:{}: {}", name, std::ranges::count(before, '\n') + 1,
                    before.size() - (line_start == std::string_view::npos ? 0 : line_start + 1) + 1,
                    reason(error)));
  }
  if (!object.is_object()) {
    throw std::runtime_error(fmt::format("{}:1:1: expected a JSON object", name));
  }
  Values values;
  collect(object, "", name, values);
  return values;
}

std::string different_keys(ValueFormat format, std::string_view before, std::string_view after) {
  std::set<std::string> keys;
  try {
    const Values old = read_values(format, before, "before");
    const Values now = read_values(format, after, "after");
    const auto add = [&keys](const Values& from, const Values& to) {
      for (const auto& [key, value] : from) {
        const auto found = to.find(key);
        if (found == to.end() || found->second != value) keys.insert(key);
      }
    };
    add(old, now);
    add(now, old);
  } catch (const std::runtime_error&) {
    return "all of it, as it could not be read before";
  }
  return keys.empty() ? std::string("how it is written") : fmt::format("{}", fmt::join(keys, ", "));
}

Values read_values(ValueFormat format, std::string_view text, std::string_view name) {
  return format == ValueFormat::toml ? read_toml_values(text, name) : read_json_values(text, name);
}

}  // namespace millrace
