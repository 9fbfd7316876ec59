#include "toml_values.h"

#include <sstream>
#include <stdexcept>

#include <fmt/format.h>
#include <toml++/toml.h>

#include "millrace/text_depth.h"

namespace millrace {

namespace {

using Values = std::map<std::string, std::string>;

std::string place(std::string_view name, const toml::source_region& at) {
  return fmt::format("{}:{}:{}", name, at.begin.line, at.begin.column);
}

std::string written(const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  std::ostringstream out;
  node.visit([&out](const auto& value) {
    if constexpr (toml::is_value<decltype(value)>) out << value;
  });
  return out.str();
}

void collect(const toml::table& table, const std::string& prefix, std::string_view name,
             Values& values) {
  for (const auto& [key, node] : table) {
    const std::string full = prefix + std::string(key.str());
    if (const auto* inner = node.as_table()) {
      collect(*inner, full + '.', name, values);
      continue;
    }
    if (node.is_array()) {
      throw std::runtime_error(
          fmt::format("{}: '{}' is a list; expected a text, a number, true or false",
                      place(name, node.source()), full));
    }
    if (!values.emplace(full, written(node)).second) {
      throw std::runtime_error(
          fmt::format("{}: '{}' is there twice", place(name, node.source()), full));
    }
  }
}

}  // namespace

Values read_toml_values(std::string_view text, std::string_view name) {
  if (const auto fault = toml_fault(text)) {
    throw std::runtime_error(
        fmt::format("{}:{}:{}: {}", name, fault->line, fault->column, fault->message));
  }
  try {
    const toml::table table = toml::parse(text);
    Values values;
    collect(table, "", name, values);
    return values;
  } catch (const toml::parse_error& error) {
    throw std::runtime_error(
        fmt::format("{}: {}", place(name, error.source()), error.description()));
  }
}

}  // namespace millrace
