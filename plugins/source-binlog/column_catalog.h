#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "connection.h"
#include "table_map.h"

namespace millrace {

/// What information_schema.COLUMNS says of a column.
struct CatalogColumn {
  std::string name;
  std::string data_type;    ///< as "int"
  std::string column_type;  ///< as "int(10) unsigned" or "enum('a','b')"
  std::string charset;      ///< empty if it has none
};

/// Completes `map` by what the catalog says now, which may be another table than the event's:
/// throws std::runtime_error if it can be seen that it is.
void complete(TableMap& map, const std::vector<CatalogColumn>& columns);

/// The members of "enum('a','it''s')".
[[nodiscard]] std::vector<std::string> members_of(std::string_view column_type);

/// Asks the server what its binary log does not tell of columns: everything but types with
/// binlog_row_metadata = NO_LOG or MINIMAL, and always which bytes are a UUID or an INET6. That is
/// seldom, so every question has a connection of its own. Throws ServerError if the server does not
/// answer.
class ColumnCatalog {
 public:
  explicit ColumnCatalog(ConnectionOptions options) : options_(std::move(options)) {}

  void complete(TableMap& map) const;

 private:
  ConnectionOptions options_;
};

}  // namespace millrace
