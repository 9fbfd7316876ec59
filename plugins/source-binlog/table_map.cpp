#include "table_map.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>

#include "byte_reader.h"
#include "charset.h"

namespace millrace {

namespace {

using Bytes = std::span<const std::uint8_t>;

/// What stands behind the columns, each with this in front.
enum Field : std::uint8_t {
  kSignedness = 1,
  kDefaultCharset = 2,
  kColumnCharset = 3,
  kColumnName = 4,
  kSetMembers = 5,
  kEnumMembers = 6,
  kChoiceDefaultCharset = 10,
  kChoiceCharset = 11,
};

bool has_sign(std::uint8_t type) {
  switch (type) {
    case MYSQL_TYPE_TINY:
    case MYSQL_TYPE_SHORT:
    case MYSQL_TYPE_INT24:
    case MYSQL_TYPE_LONG:
    case MYSQL_TYPE_LONGLONG:
    case MYSQL_TYPE_NEWDECIMAL:
    case MYSQL_TYPE_FLOAT:
    case MYSQL_TYPE_DOUBLE:
    case MYSQL_TYPE_YEAR:
      return true;
    default:
      return false;
  }
}

/// CHAR, BINARY, ENUM and SET share a type; which one it is, and the length, is in two bytes of
/// which the first lends two bits to the second.
void read_string_meta(ByteReader& meta, Column& column) {
  constexpr unsigned kLent = 0x30;
  const auto type = static_cast<unsigned>(meta.little(1));
  const auto length = static_cast<unsigned>(meta.little(1));
  const bool lends = (type & kLent) != kLent;
  column.type = static_cast<std::uint8_t>(lends ? type | kLent : type);
  column.meta =
      static_cast<std::uint16_t>(lends ? length | ((type & kLent) ^ kLent) << 4U : length);
}

void read_meta(ByteReader& meta, Column& column) {
  switch (column.type) {
    case MYSQL_TYPE_FLOAT:
    case MYSQL_TYPE_DOUBLE:
    case MYSQL_TYPE_TINY_BLOB:
    case MYSQL_TYPE_MEDIUM_BLOB:
    case MYSQL_TYPE_LONG_BLOB:
    case MYSQL_TYPE_BLOB:
    case MYSQL_TYPE_GEOMETRY:
    case MYSQL_TYPE_JSON:
    case MYSQL_TYPE_TIMESTAMP2:
    case MYSQL_TYPE_DATETIME2:
    case MYSQL_TYPE_TIME2:
    case kCompressedBlob:
      column.meta = static_cast<std::uint16_t>(meta.little(1));
      return;
    case MYSQL_TYPE_VARCHAR:
    case kCompressedVarchar:
      column.meta = static_cast<std::uint16_t>(meta.little(2));
      return;
    case MYSQL_TYPE_BIT:
    case MYSQL_TYPE_NEWDECIMAL:
      column.meta = static_cast<std::uint16_t>(meta.big(2));
      return;
    case MYSQL_TYPE_STRING:
    case MYSQL_TYPE_VAR_STRING:
    case MYSQL_TYPE_ENUM:
    case MYSQL_TYPE_SET:
      read_string_meta(meta, column);
      return;
    default:
      return;
  }
}

std::vector<Column*> columns_that(TableMap& map, bool (*is)(std::uint8_t)) {
  std::vector<Column*> found;
  for (Column& column : map.columns) {
    if (is(column.type)) found.push_back(&column);
  }
  return found;
}

void read_signs(Bytes field, TableMap& map) {
  constexpr unsigned kFirst = 0x80;
  const std::vector<Column*> numbers = columns_that(map, &has_sign);
  for (std::size_t i = 0; i < numbers.size() && i / 8 < field.size(); ++i) {
    numbers[i]->is_unsigned = (field[i / 8] & kFirst >> (i % 8)) != 0;
  }
}

/// One for all, and the positions of those that have another.
void read_default_charset(Bytes field, const std::vector<Column*>& columns) {
  ByteReader reader(field);
  const auto usual = static_cast<unsigned>(reader.length());
  for (Column* column : columns) column->charset = charset_of(usual);
  while (!reader.at_end()) {
    const std::uint64_t position = reader.length();
    const auto collation = static_cast<unsigned>(reader.length());
    if (position < columns.size()) columns[position]->charset = charset_of(collation);
  }
}

void read_charsets(Bytes field, const std::vector<Column*>& columns) {
  ByteReader reader(field);
  for (Column* column : columns)
    column->charset = charset_of(static_cast<unsigned>(reader.length()));
}

void read_names(Bytes field, TableMap& map) {
  ByteReader reader(field);
  for (Column& column : map.columns) column.name = reader.text(reader.length());
  map.described = true;
}

void read_members(Bytes field, TableMap& map, std::uint8_t type) {
  ByteReader reader(field);
  for (Column& column : map.columns) {
    if (column.type != type) continue;
    for (std::uint64_t count = reader.length(); count > 0; --count) {
      column.members.emplace_back(reader.text(reader.length()));
    }
  }
}

void read_description(ByteReader& reader, TableMap& map) {
  const std::vector<Column*> texts = columns_that(map, &is_text);
  const std::vector<Column*> choices = columns_that(map, &is_choice);
  while (!reader.at_end()) {
    const std::uint64_t kind = reader.little(1);
    const Bytes field = reader.take(reader.length());
    if (kind == kSignedness) read_signs(field, map);
    if (kind == kDefaultCharset) read_default_charset(field, texts);
    if (kind == kColumnCharset) read_charsets(field, texts);
    if (kind == kColumnName) read_names(field, map);
    if (kind == kSetMembers) read_members(field, map, MYSQL_TYPE_SET);
    if (kind == kEnumMembers) read_members(field, map, MYSQL_TYPE_ENUM);
    if (kind == kChoiceDefaultCharset) read_default_charset(field, choices);
    if (kind == kChoiceCharset) read_charsets(field, choices);
  }
  for (Column* column : choices) {
    if (column->charset == nullptr) continue;
    for (std::string& member : column->members) member = to_utf8(member, *column->charset);
  }
}

TableMap read_name(ByteReader& reader) {
  constexpr std::size_t kIdBytes = 6;
  TableMap map;
  map.id = reader.little(kIdBytes);
  reader.take(2);  // flags
  map.database = reader.text(reader.little(1));
  reader.take(1);
  map.table = reader.text(reader.little(1));
  reader.take(1);
  return map;
}

}  // namespace

bool is_text(std::uint8_t type) {
  switch (type) {
    case MYSQL_TYPE_VARCHAR:
    case MYSQL_TYPE_STRING:
    case MYSQL_TYPE_VAR_STRING:
    case MYSQL_TYPE_TINY_BLOB:
    case MYSQL_TYPE_MEDIUM_BLOB:
    case MYSQL_TYPE_LONG_BLOB:
    case MYSQL_TYPE_BLOB:
    case MYSQL_TYPE_GEOMETRY:
    case kCompressedBlob:
    case kCompressedVarchar:
      return true;
    default:
      return false;
  }
}

TableMap read_table_name(Bytes body) {
  ByteReader reader(body);
  return read_name(reader);
}

TableMap read_table_map(Bytes body) {
  ByteReader reader(body);
  TableMap map = read_name(reader);
  const Bytes types = reader.take(reader.length());
  ByteReader meta(reader.take(reader.length()));
  for (const std::uint8_t type : types) {
    Column& column = map.columns.emplace_back();
    column.type = type;
    read_meta(meta, column);
  }
  reader.take((types.size() + 7) / 8);  // which may be NULL
  read_description(reader, map);
  return map;
}

}  // namespace millrace
