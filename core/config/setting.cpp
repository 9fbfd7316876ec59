#include "config/setting.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <sstream>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace millrace::host {

namespace {

bool is_name(unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '-'; }

}  // namespace

void apply(const Setting& setting, const Variables& variables, TomlDocument& document,
           Report& report) {
  const std::size_t equals = setting.text.find('=');
  std::vector<std::string> path;
  std::stringstream names(setting.text.substr(0, equals));
  for (std::string part; std::getline(names, part, '.');) path.push_back(part);
  const bool has_value = equals != std::string::npos || setting.value;
  const bool whole = has_value && path.size() >= 2 &&
                     std::ranges::none_of(path, &std::string::empty) &&
                     std::ranges::all_of(path.front(), is_name);
  // What cannot be told from a value is not printed either.
  const std::string source_name = whole ? "--set " + setting.text.substr(0, equals) : "--set";
  if (!whole) {
    report.add({report.add_source(source_name, {}), 0, 0, 1}, "this is no setting",
               "stage.key=value");
    return;
  }
  ConfigValue value = setting.value ? *setting.value
                                    : read_toml_value(source_name, setting.text.substr(equals + 1),
                                                      variables, report);
  ConfigEntry* stages = nullptr;
  for (ConfigEntry& entry : document.root) {
    if (entry.key == "stage") stages = &entry;
  }
  ConfigValue::Table* table = stages != nullptr ? stages->value.table() : nullptr;
  if (path.front() == "config" && find(document.root, "config") != nullptr) {
    table = &document.root;
  }
  const Position at = value.at;
  for (std::size_t depth = 0; table != nullptr && depth + 1 < path.size(); ++depth) {
    auto found = std::ranges::find(*table, path[depth], &ConfigEntry::key);
    if (found == table->end() && depth > 0) {
      table->push_back({path[depth], at, {at, ConfigValue::Table{}}});
      found = std::prev(table->end());
    }
    if (found == table->end()) {
      std::vector<std::string> known;
      for (const ConfigEntry& entry : *table) known.push_back(entry.key);
      report.add(at, fmt::format("there is no stage '{}'", path[depth]), {},
                 nearest(path[depth], known));
      return;
    }
    table = found->value.table();
  }
  if (table == nullptr) {
    report.add(at, "there is nothing of that name to set", "stage.key=value");
    return;
  }
  const auto found = std::ranges::find(*table, path.back(), &ConfigEntry::key);
  if (found == table->end()) {
    table->push_back({path.back(), at, std::move(value)});
  } else {
    found->key_at = at;
    found->value = std::move(value);
  }
}

}  // namespace millrace::host
