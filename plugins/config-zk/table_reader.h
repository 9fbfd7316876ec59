#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/change.h"

#include "connection.h"

namespace millrace {

/// A table of a MySQL or MariaDB server.
struct TableAddress {
  ConnectionOptions server;
  std::string table;
};

/// Reads `mysql://user:password@host:port/database?table=NAME`, behind which `&tls=required` or
/// `&tls=verify`, `&tls_ca=FILE` and `&socket=/path` may stand. Throws std::invalid_argument, which
/// never tells the password.
[[nodiscard]] TableAddress parse_table_address(std::string_view url);

/// All rows as they are at one moment, by a connection of its own. `columns`: these, or all. Throws
/// ServerError.
[[nodiscard]] std::vector<Change::Row> read_table(
    const TableAddress& address, const std::optional<std::vector<std::string>>& columns);

}  // namespace millrace
