#pragma once

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "millrace/change.h"

#include "json_values.h"
#include "node_template.h"

namespace millrace {

/// A row that no node can be made of. The text says nothing of its values: what is wrong with many
/// rows is then the same text.
class RowFault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// How a row becomes a node: its path and its value.
class NodeLayout {
 public:
  struct Options {
    std::string node;  ///< template of the path
    ValueFormat format = ValueFormat::toml;
    std::vector<std::string> columns;  ///< of the value; empty: all that are not in the path
    std::string value;                 ///< template of the value; then `columns` is empty
  };
  /// Throws ConfigError.
  explicit NodeLayout(const Options& options);

  /// Both throw RowFault.
  /// The columns of the path with their values, to name the row in messages: "agent = 'a/b'".
  [[nodiscard]] std::string name_of(const Change::Row& row) const;
  [[nodiscard]] std::string path(const Change::Row& row) const;
  [[nodiscard]] std::string value(const Change::Row& row) const;

  /// The columns that are needed; nothing means all.
  [[nodiscard]] std::optional<std::vector<std::string>> columns() const;
  /// The folder in which every node can only be of this layout: there, if the path ends with
  /// "/{column}" and has no other column. Otherwise empty.
  [[nodiscard]] std::string owned_folder() const;

 private:
  [[nodiscard]] std::string from_columns(const Change::Row& row) const;

  NodeTemplate path_;
  ValueFormat format_;
  std::vector<std::string> columns_;
  std::optional<NodeTemplate> value_;
};

}  // namespace millrace
