#include "column_value.h"

#include <array>
#include <bit>
#include <cstring>
#include <stdexcept>

#include <arpa/inet.h>
#include <fmt/format.h>

#include "charset.h"
#include "number_text.h"
#include "time_text.h"

namespace millrace {

namespace {

std::string integer(ByteReader& reader, std::size_t size, bool is_unsigned) {
  const std::uint64_t value = reader.little(size);
  if (is_unsigned) return std::to_string(value);
  const auto unused = static_cast<unsigned>(64 - 8 * size);
  return std::to_string(static_cast<std::int64_t>(value << unused) >> unused);
}

std::string decimal(ByteReader& reader, const Column& column) {
  const unsigned precision = column.meta >> 8U;
  const unsigned scale = column.meta & 255U;
  if (scale > precision) throw std::runtime_error("a DECIMAL in the event is none");
  return decimal_text(reader.take(decimal_size(precision, scale)), precision, scale);
}

std::string bits(ByteReader& reader, const Column& column) {
  const std::size_t size = (column.meta & 255U) + ((column.meta >> 8U) != 0 ? 1 : 0);
  return std::to_string(reader.big(size));
}

std::string choice(ByteReader& reader, const Column& column) {
  const std::uint64_t value = reader.little(column.meta & 255U);
  if (column.type == MYSQL_TYPE_ENUM) {
    if (value == 0)
      return {};  // what the server keeps of a wrong value in a mode that is not strict
    if (value > column.members.size()) throw std::runtime_error("an ENUM has no such member");
    return column.members[value - 1];
  }
  std::string text;
  for (std::size_t i = 0; i < 64; ++i) {
    if ((value >> i & 1U) == 0) continue;
    if (i >= column.members.size()) throw std::runtime_error("a SET has no such member");
    if (!text.empty()) text += ',';
    text += column.members[i];
  }
  return text;
}

std::string address(const std::string& bytes, int family) {
  if (bytes.size() != (family == AF_INET6 ? sizeof(in6_addr) : sizeof(in_addr))) {
    throw std::runtime_error("an address in the event is none");
  }
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (::inet_ntop(family, bytes.data(), text.data(), text.size()) == nullptr) {
    throw std::runtime_error("an address in the event is none");
  }
  return text.data();
}

std::string uuid(const std::string& bytes) {
  constexpr std::size_t kBytes = 16;
  if (bytes.size() != kBytes) throw std::runtime_error("a UUID in the event is none");
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", static_cast<unsigned char>(bytes[i]));
  }
  return text;
}

std::string encoded(std::string_view bytes, const Column& column) {
  if (column.charset == nullptr) throw std::runtime_error("its character set is not known");
  return to_utf8(bytes, *column.charset);
}

/// CHAR and what is stored like it: without the spaces, or the zeros of bytes, at its end.
std::string fixed(ByteReader& reader, const Column& column) {
  constexpr std::uint16_t kShort = 255;
  const std::string_view bytes = reader.text(reader.little(column.meta > kShort ? 2 : 1));
  const bool binary = column.charset != nullptr && column.charset->nr == kBinaryCollation;
  if (!binary && column.meaning == Column::Meaning::bytes) return encoded(bytes, column);
  std::string whole(bytes);
  whole.resize(column.meta, '\0');
  switch (column.meaning) {
    case Column::Meaning::uuid:
      return uuid(whole);
    case Column::Meaning::inet6:
      return address(whole, AF_INET6);
    case Column::Meaning::inet4:
      return address(whole, AF_INET);
    case Column::Meaning::bytes:
      break;
  }
  return encoded(whole, column);
}

}  // namespace

std::string read_value(ByteReader& reader, const Column& column) {
  constexpr std::uint16_t kShort = 255;
  switch (column.type) {
    case MYSQL_TYPE_TINY:
      return integer(reader, 1, column.is_unsigned);
    case MYSQL_TYPE_SHORT:
      return integer(reader, 2, column.is_unsigned);
    case MYSQL_TYPE_INT24:
      return integer(reader, 3, column.is_unsigned);
    case MYSQL_TYPE_LONG:
      return integer(reader, 4, column.is_unsigned);
    case MYSQL_TYPE_LONGLONG:
      return integer(reader, 8, column.is_unsigned);
    case MYSQL_TYPE_NEWDECIMAL:
      return decimal(reader, column);
    case MYSQL_TYPE_FLOAT:
      return float_text(std::bit_cast<float>(static_cast<std::uint32_t>(reader.little(4))));
    case MYSQL_TYPE_DOUBLE:
      return double_text(std::bit_cast<double>(reader.little(8)));
    case MYSQL_TYPE_BIT:
      return bits(reader, column);
    case MYSQL_TYPE_YEAR:
      return year_text(reader);
    case MYSQL_TYPE_DATE:
    case MYSQL_TYPE_NEWDATE:
      return date_text(reader);
    case MYSQL_TYPE_TIME:
      return old_time_text(reader);
    case MYSQL_TYPE_DATETIME:
      return old_datetime_text(reader);
    case MYSQL_TYPE_TIMESTAMP:
      return old_timestamp_text(reader);
    case MYSQL_TYPE_TIME2:
      return time_text(reader, column.meta);
    case MYSQL_TYPE_DATETIME2:
      return datetime_text(reader, column.meta);
    case MYSQL_TYPE_TIMESTAMP2:
      return timestamp_text(reader, column.meta);
    case MYSQL_TYPE_ENUM:
    case MYSQL_TYPE_SET:
      return choice(reader, column);
    case MYSQL_TYPE_STRING:
    case MYSQL_TYPE_VAR_STRING:
      return fixed(reader, column);
    case MYSQL_TYPE_VARCHAR:
      return encoded(reader.text(reader.little(column.meta > kShort ? 2 : 1)), column);
    case MYSQL_TYPE_TINY_BLOB:
    case MYSQL_TYPE_MEDIUM_BLOB:
    case MYSQL_TYPE_LONG_BLOB:
    case MYSQL_TYPE_BLOB:
    case MYSQL_TYPE_GEOMETRY:
      return encoded(reader.text(reader.little(column.meta)), column);
    case kCompressedBlob:
    case kCompressedVarchar:
      throw std::runtime_error("it is COMPRESSED, which is not supported");
    default:
      throw std::runtime_error(fmt::format("its type {} is not supported", column.type));
  }
}

}  // namespace millrace
