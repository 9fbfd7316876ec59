#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <mysql.h>

namespace millrace {

/// Types of MariaDB that the client library has no name for: columns declared COMPRESSED.
inline constexpr std::uint8_t kCompressedBlob = 140;
inline constexpr std::uint8_t kCompressedVarchar = 141;

/// A column as a table map event describes it, completed by the database's own catalog where that
/// event says too little (see ColumnCatalog).
struct Column {
  /// What the bytes of a fixed binary column stand for; the log does not tell.
  enum class Meaning : std::uint8_t { bytes, uuid, inet6, inet4 };

  std::uint8_t type = MYSQL_TYPE_NULL;  ///< enum_field_types; of ENUM and SET the real one
  std::uint16_t meta = 0;               ///< by type: length, precision and scale, fraction digits
  bool is_unsigned = false;
  Meaning meaning = Meaning::bytes;
  std::string name;
  const MARIADB_CHARSET_INFO* charset = nullptr;
  std::vector<std::string> members;  ///< of ENUM and SET, in UTF-8
};

/// The table that the next row events are about.
struct TableMap {
  std::uint64_t id = 0;
  std::string database;
  std::string table;
  std::vector<Column> columns;
  /// The event tells names, signs and character sets (binlog_row_metadata = FULL).
  bool described = false;
};

/// The identity of the table in the body of a table map event, without its columns.
[[nodiscard]] TableMap read_table_name(std::span<const std::uint8_t> body);
/// All of it. Throws std::runtime_error if it cannot be read.
[[nodiscard]] TableMap read_table_map(std::span<const std::uint8_t> body);

/// Whether values of the type are texts or bytes, with a character set.
[[nodiscard]] bool is_text(std::uint8_t type);
[[nodiscard]] inline bool is_choice(std::uint8_t type) {
  return type == MYSQL_TYPE_ENUM || type == MYSQL_TYPE_SET;
}

}  // namespace millrace
