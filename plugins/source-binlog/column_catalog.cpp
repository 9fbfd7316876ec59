#include "column_catalog.h"

#include <algorithm>
#include <array>
#include <stdexcept>

#include <fmt/format.h>

#include "charset.h"

namespace millrace {

namespace {

struct TypeName {
  std::string_view name;
  std::uint8_t type;
};

/// Under which types the log may hold a column of a type; the first that is named fits.
constexpr std::array kTypes{
    TypeName{"tinyint", MYSQL_TYPE_TINY},
    TypeName{"smallint", MYSQL_TYPE_SHORT},
    TypeName{"mediumint", MYSQL_TYPE_INT24},
    TypeName{"int", MYSQL_TYPE_LONG},
    TypeName{"bigint", MYSQL_TYPE_LONGLONG},
    TypeName{"decimal", MYSQL_TYPE_NEWDECIMAL},
    TypeName{"float", MYSQL_TYPE_FLOAT},
    TypeName{"double", MYSQL_TYPE_DOUBLE},
    TypeName{"bit", MYSQL_TYPE_BIT},
    TypeName{"year", MYSQL_TYPE_YEAR},
    TypeName{"date", MYSQL_TYPE_DATE},
    TypeName{"date", MYSQL_TYPE_NEWDATE},
    TypeName{"time", MYSQL_TYPE_TIME2},
    TypeName{"time", MYSQL_TYPE_TIME},
    TypeName{"datetime", MYSQL_TYPE_DATETIME2},
    TypeName{"datetime", MYSQL_TYPE_DATETIME},
    TypeName{"timestamp", MYSQL_TYPE_TIMESTAMP2},
    TypeName{"timestamp", MYSQL_TYPE_TIMESTAMP},
    TypeName{"enum", MYSQL_TYPE_ENUM},
    TypeName{"set", MYSQL_TYPE_SET},
    TypeName{"char", MYSQL_TYPE_STRING},
    TypeName{"binary", MYSQL_TYPE_STRING},
    TypeName{"uuid", MYSQL_TYPE_STRING},
    TypeName{"inet6", MYSQL_TYPE_STRING},
    TypeName{"inet4", MYSQL_TYPE_STRING},
    TypeName{"varchar", MYSQL_TYPE_VARCHAR},
    TypeName{"varbinary", MYSQL_TYPE_VARCHAR},
    TypeName{"varchar", kCompressedVarchar},
    TypeName{"varbinary", kCompressedVarchar},
};

bool fits(const Column& column, const CatalogColumn& known) {
  const std::string_view name = known.data_type;
  if (column.type == MYSQL_TYPE_BLOB || column.type == kCompressedBlob) {
    return name.ends_with("text") || name.ends_with("blob");
  }
  if (column.type == MYSQL_TYPE_GEOMETRY) {
    return std::ranges::none_of(kTypes, [name](const TypeName& one) { return one.name == name; });
  }
  return std::ranges::any_of(
      kTypes, [&](const TypeName& one) { return one.name == name && one.type == column.type; });
}

void describe(Column& column, const CatalogColumn& known) {
  column.name = known.name;
  column.is_unsigned = known.column_type.find(" unsigned") != std::string::npos ||
                       known.column_type.find(" zerofill") != std::string::npos;
  if (is_choice(column.type)) column.members = members_of(known.column_type);
  column.charset = known.charset.empty() ? charset_of(kBinaryCollation) : charset_of(known.charset);
}

Column::Meaning meaning_of(std::string_view data_type) {
  if (data_type == "uuid") return Column::Meaning::uuid;
  if (data_type == "inet6") return Column::Meaning::inet6;
  if (data_type == "inet4") return Column::Meaning::inet4;
  return Column::Meaning::bytes;
}

/// Whether the bytes may be a UUID or an address, which no event tells apart from BINARY.
bool is_ambiguous(const Column& column) {
  constexpr std::uint16_t kLong = 16;
  constexpr std::uint16_t kInet4 = 4;
  return column.type == MYSQL_TYPE_STRING && column.charset != nullptr &&
         column.charset->nr == kBinaryCollation && (column.meta == kLong || column.meta == kInet4);
}

/// Forms of before MySQL 5.6, of which the log does not tell whether they have a fraction.
bool is_old_time(const Column& column) {
  return column.type == MYSQL_TYPE_TIME || column.type == MYSQL_TYPE_DATETIME ||
         column.type == MYSQL_TYPE_TIMESTAMP;
}

bool is_complete(const TableMap& map) {
  return map.described && std::ranges::none_of(map.columns, [](const Column& column) {
           return is_ambiguous(column) || is_old_time(column) ||
                  (is_text(column.type) && column.charset == nullptr);
         });
}

std::string quoted(std::string_view text) {
  std::string literal = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') literal += '\\';
    literal += c;
  }
  return literal + '\'';
}

}  // namespace

std::vector<std::string> members_of(std::string_view column_type) {
  std::vector<std::string> members;
  bool inside = false;
  for (std::size_t i = 0; i < column_type.size(); ++i) {
    const char c = column_type[i];
    if (c != '\'') {
      if (inside) members.back() += c;
    } else if (!inside) {
      inside = true;
      members.emplace_back();
    } else if (i + 1 < column_type.size() && column_type[i + 1] == '\'') {
      members.back() += c;
      ++i;
    } else {
      inside = false;
    }
  }
  return members;
}

void complete(TableMap& map, const std::vector<CatalogColumn>& columns) {
  if (!map.described) {
    if (columns.size() != map.columns.size()) {
      throw std::runtime_error(
          fmt::format("it has {} columns, and the table has {} now that this user may see; with "
                      "binlog_row_metadata = FULL the log itself tells names",
                      map.columns.size(), columns.size()));
    }
    for (std::size_t i = 0; i < columns.size(); ++i) {
      if (!fits(map.columns[i], columns[i])) {
        throw std::runtime_error(fmt::format(
            "column {} was of another type than '{}' ({}) is now; with binlog_row_metadata = FULL "
            "the log itself tells names",
            i + 1, columns[i].name, columns[i].column_type));
      }
      describe(map.columns[i], columns[i]);
    }
  }
  for (Column& column : map.columns) {
    const auto known = std::ranges::find(columns, column.name, &CatalogColumn::name);
    if (known == columns.end() || !fits(column, *known)) continue;
    if (is_old_time(column) && known->column_type.find('(') != std::string::npos) {
      throw std::runtime_error(fmt::format(
          "column '{}' has fractions of seconds in the form of before MariaDB 10.1; set "
          "mysql56_temporal_format = ON, and ALTER TABLE ... FORCE",
          column.name));
    }
    if (is_ambiguous(column)) column.meaning = meaning_of(known->data_type);
    if (column.charset == nullptr && !known->charset.empty()) {
      column.charset = charset_of(known->charset);
    }
  }
}

void ColumnCatalog::complete(TableMap& map) const {
  if (is_complete(map)) return;
  Connection connection;
  connection.open(options_);
  std::vector<CatalogColumn> columns;
  for (const Connection::Row& row : connection.query(
           fmt::format("SELECT column_name, data_type, column_type, character_set_name FROM "
                       "information_schema.columns WHERE table_schema = {} AND table_name = {} "
                       "ORDER BY ordinal_position",
                       quoted(map.database), quoted(map.table)))) {
    columns.push_back({row.at(0).value_or(""), row.at(1).value_or(""), row.at(2).value_or(""),
                       row.at(3).value_or("")});
  }
  millrace::complete(map, columns);
}

}  // namespace millrace
