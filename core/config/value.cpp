#include "config/value.h"

#include <algorithm>
#include <charconv>
#include <type_traits>

#include <fmt/format.h>

namespace millrace::host {

const ConfigEntry* find(const ConfigValue::Table& table, std::string_view key) {
  const auto found = std::ranges::find(table, key, &ConfigEntry::key);
  return found == table.end() ? nullptr : &*found;
}

std::string_view kind_of(const ConfigValue& value) {
  static constexpr std::string_view kNames[] = {"true or false", "an integer", "a number",
                                                "a text",        "a list",     "a table"};
  return kNames[value.value.index()];
}

bool any_unresolved(const ConfigValue& value) {
  if (value.unresolved) return true;
  if (const auto* list = value.list()) return std::ranges::any_of(*list, any_unresolved);
  if (const auto* table = value.table()) {
    return std::ranges::any_of(
        *table, [](const ConfigEntry& entry) { return any_unresolved(entry.value); });
  }
  return false;
}

namespace {

/// For an option that takes a table of texts: `a.b = 1` in it is the text "1" under "a.b". What
/// stands later in the file (or in --set) replaces what stands before.
void flatten(const ConfigValue::Table& table, const std::string& before, OptionValue::Table& out) {
  for (const ConfigEntry& entry : table) {
    const std::string name = before + entry.key;
    if (const auto* inner = entry.value.table()) {
      flatten(*inner, name + '.', out);
      continue;
    }
    OptionValue value = std::visit(
        [&](const auto& held) -> OptionValue {
          using T = std::decay_t<decltype(held)>;
          if constexpr (std::is_arithmetic_v<T>) return {fmt::format("{}", held)};
          return to_option_value(entry.value, {});
        },
        entry.value.value);
    const auto known = std::ranges::find(out, name, &OptionMember::name);
    if (known != out.end()) {
      known->value = std::move(value);
    } else {
      out.push_back({name, std::move(value)});
    }
  }
}

template <class T>
bool parse_whole(const std::string& text, T& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

OptionValue to_option_value(const ConfigValue& value, std::string_view spec_type) {
  if (value.substituted && value.text() != nullptr) {
    const std::string& text = *value.text();
    std::int64_t whole = 0;
    double number = 0;
    if (spec_type == "true or false" && (text == "true" || text == "false")) {
      return {text == "true"};
    }
    if ((spec_type == "integer" || spec_type == "number" || spec_type == "size") &&
        parse_whole(text, whole)) {
      return {whole};
    }
    if (spec_type == "number" && parse_whole(text, number)) return {number};
  }
  return std::visit(
      [spec_type](const auto& held) -> OptionValue {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<T, ConfigValue::List>) {
          OptionValue::List list;
          for (const ConfigValue& element : held)
            list.push_back(to_option_value(element, spec_type));
          return {std::move(list)};
        } else if constexpr (std::is_same_v<T, ConfigValue::Table>) {
          OptionValue::Table table;
          if (spec_type == "table of texts") {
            flatten(held, {}, table);
            return {std::move(table)};
          }
          for (const ConfigEntry& entry : held) {
            table.push_back({entry.key, to_option_value(entry.value, spec_type)});
          }
          return {std::move(table)};
        } else {
          return {held};
        }
      },
      value.value);
}

void hide(const ConfigValue& value, Report& report) {
  if (const auto* list = value.list()) {
    for (const ConfigValue& element : *list) hide(element, report);
  } else if (const auto* table = value.table()) {
    for (const ConfigEntry& entry : *table) hide(entry.value, report);
  } else {
    report.hide(value.at, value.end);
  }
}

std::string to_text(const ConfigValue& value) {
  return std::visit(
      [](const auto& held) -> std::string {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<T, ConfigValue::List>) {
          return "[...]";
        } else if constexpr (std::is_same_v<T, ConfigValue::Table>) {
          return "{...}";
        } else if constexpr (std::is_same_v<T, std::string>) {
          return fmt::format("\"{}\"", held);
        } else {
          return fmt::format("{}", held);
        }
      },
      value.value);
}

}  // namespace millrace::host
