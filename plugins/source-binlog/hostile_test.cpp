#include <cstdint>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "byte_reader.h"
#include "column_value.h"
#include "row_event.h"
#include "table_map.h"

namespace millrace {
namespace {

using Bytes = std::vector<std::uint8_t>;
using ::testing::HasSubstr;

template <class Call>
std::string fault(Call call) {
  try {
    call();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "accepted";
}

std::string fault_of_value(std::uint8_t type, std::uint16_t meta,
                           Column::Meaning meaning = Column::Meaning::bytes) {
  Column column;
  column.type = type;
  column.meta = meta;
  column.meaning = meaning;
  column.charset = mariadb_get_charset_by_nr(63);  // binary
  return fault([&] {
    const Bytes bytes(600, 3);
    ByteReader reader(bytes);
    (void)read_value(reader, column);
  });
}

TEST(HostileBinlog, RowsOfATableWithoutColumnsAreAnError) {
  const Bytes rows(8);
  RowEvent event;
  event.rows = rows;
  EXPECT_EQ(fault([&] { (void)read_rows(TableMap(), event); }), "its table has no columns");
}

TEST(HostileBinlog, RowsAreBounded) {
  TableMap map;
  map.columns.resize(8);
  const Bytes present{0xff};
  const Bytes rows(1U << 20U, 0xff);  // each a row of NULLs
  RowEvent event;
  event.kind = Change::Kind::inserted;
  event.columns = 8;
  event.present = present;
  event.rows = rows;
  EXPECT_THAT(fault([&] { (void)read_rows(map, event); }), HasSubstr("more than 1048576 values"));
}

TEST(HostileBinlog, NumbersHaveAtMostEightBytes) {
  const Bytes bytes(300, 1);
  for (const std::size_t size : {9U, 10U, 255U}) {
    EXPECT_THAT(fault([&] { (void)ByteReader(bytes).little(size); }), HasSubstr("too long"));
    EXPECT_THAT(fault([&] { (void)ByteReader(bytes).big(size); }), HasSubstr("too long"));
  }
  EXPECT_EQ(ByteReader(bytes).little(8), 0x0101010101010101U);
}

TEST(HostileBinlog, WhatTheTableMapSaysOfAColumnIsNotTrusted) {
  // Length bytes of a BLOB, of a number of bits, of an ENUM and a SET.
  EXPECT_THAT(fault_of_value(MYSQL_TYPE_BLOB, 41), HasSubstr("too long"));
  EXPECT_THAT(fault_of_value(MYSQL_TYPE_BLOB, 255), HasSubstr("too long"));
  EXPECT_THAT(fault_of_value(MYSQL_TYPE_BIT, 0x01ff), HasSubstr("too long"));
  EXPECT_THAT(fault_of_value(MYSQL_TYPE_ENUM, 200), HasSubstr("too long"));
  EXPECT_THAT(fault_of_value(MYSQL_TYPE_SET, 200), HasSubstr("too long"));
  EXPECT_THAT(fault_of_value(MYSQL_TYPE_NEWDECIMAL, 0x0105), HasSubstr("DECIMAL"));
  EXPECT_THAT(fault_of_value(MYSQL_TYPE_TIME2, 200), HasSubstr("too many digits"));
  EXPECT_THAT(fault_of_value(MYSQL_TYPE_STRING, 2, Column::Meaning::inet6), HasSubstr("address"));
  EXPECT_THAT(fault_of_value(MYSQL_TYPE_STRING, 2, Column::Meaning::inet4), HasSubstr("address"));
  EXPECT_THAT(fault_of_value(MYSQL_TYPE_STRING, 2, Column::Meaning::uuid), HasSubstr("UUID"));
}

}  // namespace
}  // namespace millrace
