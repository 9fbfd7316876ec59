#include "node_layout.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "millrace/error.h"

#include "zk_names.h"

namespace millrace {

namespace {

/// ZooKeeper takes a message of a megabyte, of which the value is the largest part.
constexpr std::size_t kLongestValue = 1000000;

using Value = std::optional<std::string>;

const Value& column_of(const Change::Row& row, const std::string& name) {
  const auto found = std::ranges::find(row, name, &Change::Row::value_type::first);
  if (found == row.end()) throw RowFault(fmt::format("the row has no column '{}'", name));
  return found->second;
}

/// As it stands between quotation marks in TOML and in JSON alike.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      out += fmt::format("\\u{:04X}", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  return out;
}

std::string key(std::string_view name, ValueFormat format) {
  const bool bare = !name.empty() && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
  return bare && format == ValueFormat::toml ? std::string(name)
                                             : fmt::format("\"{}\"", escaped(name));
}

}  // namespace

NodeLayout::NodeLayout(const Options& options)
    : path_(options.node), format_(options.format), columns_(options.columns) {
  const auto one = [](const std::string&) { return std::string("1"); };
  if (const std::string fault = path_fault(path_.render(one)); !fault.empty()) {
    throw ConfigError("node", fmt::format("'{}' gives no path of a node: {}", options.node, fault));
  }
  if (path_.columns().empty()) {
    throw ConfigError("node", fmt::format("'{}' has no {{column}} in it: all rows would be one "
                                          "node",
                                          options.node));
  }
  if (options.value.empty()) return;
  if (!options.columns.empty()) {
    throw ConfigError("value", "it says what the nodes hold, and so does 'columns'");
  }
  value_ = NodeTemplate(options.value);
  try {
    (void)read_values(format_, value_->render(one), "value");
  } catch (const std::runtime_error& error) {
    throw ConfigError("value",
                      fmt::format("with 1 for every column it cannot be read: {}", error.what()));
  }
}

std::string NodeLayout::name_of(const Change::Row& row) const {
  constexpr std::size_t kLongest = 80;
  std::string name;
  for (const std::string& column : path_.columns()) {
    const auto found = std::ranges::find(row, column, &Change::Row::value_type::first);
    const std::string value = found == row.end() ? "missing"
                              : !found->second   ? "NULL"
                              : found->second->size() > kLongest
                                  ? fmt::format("'{}...'", cut_text(*found->second, kLongest))
                                  : fmt::format("'{}'", *found->second);
    name += fmt::format("{}{} = {}", name.empty() ? "" : ", ", column, value);
  }
  // Of a value that is wrong in this way it stands in a log line.
  std::ranges::replace_if(
      name, [](unsigned char c) { return c < 0x20 || c == 0x7F; }, '?');
  return name;
}

std::string NodeLayout::path(const Change::Row& row) const {
  std::string path = path_.render([&row](const std::string& name) {
    const Value& value = column_of(row, name);
    if (!value) throw RowFault(fmt::format("column '{}' of the path is NULL", name));
    if (const std::string fault = name_fault(*value); !fault.empty()) {
      throw RowFault(fmt::format("column '{}' cannot be part of a path: {}", name, fault));
    }
    return *value;
  });
  if (const std::string fault = path_fault(path); !fault.empty()) {
    throw RowFault(fmt::format("the row gives no path of a node: {}", fault));
  }
  return path;
}

std::string NodeLayout::value(const Change::Row& row) const {
  std::string text = value_ ? value_->render([&row](const std::string& name) {
    return escaped(column_of(row, name).value_or(""));
  })
                            : from_columns(row);
  if (text.size() > kLongestValue) {
    throw RowFault(fmt::format("the node's value would have more than {} bytes", kLongestValue));
  }
  try {
    (void)read_values(format_, text, "value");
  } catch (const std::runtime_error& error) {
    throw RowFault(fmt::format("the node's value could not be read: {}", error.what()));
  }
  return text;
}

std::string NodeLayout::from_columns(const Change::Row& row) const {
  std::vector<std::pair<std::string, Value>> members;
  if (columns_.empty()) {
    // Sorted, as a database and a message of its changes may disagree on the order.
    const std::vector<std::string> in_path = path_.columns();
    const std::map<std::string, Value> sorted(row.begin(), row.end());
    for (const auto& [name, value] : sorted) {
      if (std::ranges::find(in_path, name) == in_path.end()) members.emplace_back(name, value);
    }
  } else {
    for (const std::string& name : columns_) members.emplace_back(name, column_of(row, name));
  }
  std::erase_if(members, [](const auto& member) { return !member.second; });
  const bool toml = format_ == ValueFormat::toml;
  std::string text = toml ? "" : "{";
  for (const auto& [name, value] : members) {
    if (toml) {
      text += fmt::format("{} = \"{}\"\n", key(name, format_), escaped(*value));
    } else {
      text += fmt::format("{}\n  {}: \"{}\"", text.size() > 1 ? "," : "", key(name, format_),
                          escaped(*value));
    }
  }
  if (!toml) text += text.size() > 1 ? "\n}\n" : "}\n";
  return text;
}

std::optional<std::vector<std::string>> NodeLayout::columns() const {
  if (columns_.empty() && !value_) return std::nullopt;
  std::vector<std::string> names = path_.columns();
  for (const std::string& name : value_ ? value_->columns() : columns_) {
    if (std::ranges::find(names, name) == names.end()) names.push_back(name);
  }
  return names;
}

std::string NodeLayout::owned_folder() const {
  const auto& pieces = path_.pieces();
  if (pieces.size() != 1 || !pieces[0].text.ends_with('/')) return {};
  return pieces[0].text.substr(0, pieces[0].text.size() - 1);
}

}  // namespace millrace
