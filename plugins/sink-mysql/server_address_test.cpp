#include "server_address.h"

#include <stdexcept>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string refusal(std::string_view url) {
  try {
    return to_string(parse_server_address(url));
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
}

TEST(ServerAddress, EveryPartIsRead) {
  const ServerAddress address =
      parse_server_address("mysql://me%40home:p%2Fw%3A@db.example:3307/d");
  EXPECT_EQ(address.user, "me@home");
  EXPECT_EQ(address.password, "p/w:");
  EXPECT_EQ(address.host, "db.example");
  EXPECT_EQ(address.port, 3307);
  EXPECT_EQ(address.database, "d");
  EXPECT_EQ(to_string(address), "mysql://me@home@db.example:3307/d");
}

TEST(ServerAddress, PortAndPasswordMayBeMissing) {
  const ServerAddress address = parse_server_address("mysql://u@h/d");
  EXPECT_EQ(address.port, 3306);
  EXPECT_EQ(address.password, "");
}

TEST(ServerAddress, Ipv6AndSocket) {
  EXPECT_EQ(parse_server_address("mysql://u@[::1]/d").host, "::1");
  EXPECT_EQ(refusal("mysql://u:p@[::1]:33/d"), "mysql://u@[::1]:33/d");
  EXPECT_EQ(parse_server_address("mysql://u@/d?socket=/run/a%20b").socket, "/run/a b");
  EXPECT_EQ(refusal("mysql://u:p@/d?socket=/s"), "mysql://u@/d?socket=/s");
}

TEST(ServerAddress, WhatIsWrongIsNamedAndNoPasswordTold) {
  for (const auto& [url, what] : std::initializer_list<std::pair<const char*, const char*>>{
           {"http://u@h/d", "expected mysql://"},
           {"mysql://u:secret@h", "database is missing"},
           {"mysql://u:secret@h/", "database is missing"},
           {"mysql://h/d", "user is missing"},
           {"mysql://u:secret@/d", "host is missing"},
           {"mysql://u:secret@h:0/d", "port"},
           {"mysql://u:secret@h1:3306,h2:3306/d", "several hosts"},
           {"mysql://u:secret@h1,h2/d", "several hosts"},
           {"mysql://u:secret@h 1/d", "neither a name nor an address"},
           {"mysql://u:secret@h:65536/d", "port"},
           {"mysql://u:secret@h:3306x/d", "port"},
           {"mysql://u:secret@[::1/d", "["},
           {"mysql://u:secret@[::1]x/d", "port"},
           {"mysql://u:secret%4@h/d", "%25"},
           {"mysql://u:secret%4G@h/d", "%25"},
           {"mysql://u:sec/secret@h/d", "%2F"},
           {"mysql://u:secret@h/d?tls=1", "socket="},
           {"mysql://u:secret@h/d?socket=s", "begin with /"},
       }) {
    EXPECT_THAT(refusal(url), HasSubstr(what)) << url;
    EXPECT_THAT(refusal(url), Not(HasSubstr("secret"))) << url;
  }
}

}  // namespace
}  // namespace millrace
