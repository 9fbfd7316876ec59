#include "millrace/json.h"

#include <gtest/gtest.h>

#include "millrace/session.h"

namespace millrace {
namespace {

std::string quoted(std::string_view text) {
  std::string json;
  json::append_string(json, text);
  return json;
}

TEST(JsonTest, EscapesWhatMustBeEscaped) {
  EXPECT_EQ(quoted("a\"b\\c\n\t\r\x01"), R"("a\"b\\c\n\t\r\u0001")");
  EXPECT_EQ(quoted("gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x98\x80"),
            "\"gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x98\x80\"");
}

TEST(JsonTest, BytesThatAreNoUtf8AreReplaced) {
  const std::string bad = "\"\xEF\xBF\xBD\"";
  EXPECT_EQ(quoted("\xFF"), bad);
  EXPECT_EQ(quoted("\xC3"), bad);                                         // cut off
  EXPECT_EQ(quoted("\xC0\xAF"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\"");          // overlong
  EXPECT_EQ(quoted("\xED\xA0\x80").find("\xED"), std::string::npos);      // surrogate
  EXPECT_EQ(quoted("\xF4\x90\x80\x80").find("\xF4"), std::string::npos);  // beyond U+10FFFF
}

TEST(JsonTest, ObjectPutsCommasBetweenMembers) {
  std::string out;
  {
    json::Object object(out);
    object.member("a", 1);
    object.member("b", true);
    object.raw("c", "[]");
  }
  EXPECT_EQ(out, R"({"a":1,"b":true,"c":[]})");
}

// The examples of RFC 4648.
TEST(JsonTest, Base64) {
  std::string out;
  for (const std::string_view text : {"", "f", "fo", "foo", "foob", "fooba", "foobar"}) {
    json::append_base64(out, std::as_bytes(std::span(text)));
    out += ' ';
  }
  EXPECT_EQ(out, " Zg== Zm8= Zm9v Zm9vYg== Zm9vYmE= Zm9vYmFy ");
}

TEST(TextTest, TimesAddressesAndIds) {
  EXPECT_EQ(to_rfc3339(Timestamp(Duration(1462356672123456789))), "2016-05-04T10:11:12.123456789Z");
  Address address{0x20, 0x01, 0x0d, 0xb8};
  address[15] = 1;
  EXPECT_EQ(to_string(address, 6), "2001:db8::1");
  EXPECT_EQ(to_string(Address{10, 0, 0, 1}, 4), "10.0.0.1");
  EXPECT_EQ(protocol_name(6), "tcp");
  EXPECT_EQ(protocol_name(132), "132");
}

// Stored ids must stay valid: a change of this value breaks every store that there is.
TEST(SessionIdTest, IsFixedForEver) {
  FiveTuple key;
  key.low = {10, 0, 0, 1};
  key.high = {10, 0, 0, 2};
  key.low_port = 80;
  key.high_port = 40000;
  key.protocol = 6;
  EXPECT_EQ(to_hex(session_id(key, Timestamp(std::chrono::seconds(1)), 0)),
            "826f4e6bb1175d32b481feb5912879f2");
  EXPECT_NE(session_id(key, Timestamp(std::chrono::seconds(1)), 0),
            session_id(key, Timestamp(std::chrono::seconds(1)), 1));
}

}  // namespace
}  // namespace millrace
