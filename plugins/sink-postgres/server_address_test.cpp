#include "server_address.h"

#include <stdexcept>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string refusal(const std::string& url) {
  try {
    return to_string(parse_server_address(url));
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
}

TEST(PostgresAddress, EveryPartIsRead) {
  const ServerAddress address =
      parse_server_address("postgresql://me%40home:p%2Fw%3A@db.example:5433/d");
  EXPECT_EQ(address.at("user"), "me@home");
  EXPECT_EQ(address.at("password"), "p/w:");
  EXPECT_EQ(address.at("host"), "db.example");
  EXPECT_EQ(address.at("port"), "5433");
  EXPECT_EQ(address.at("dbname"), "d");
  EXPECT_EQ(to_string(address), "postgresql://me@home@db.example:5433/d");
}

TEST(PostgresAddress, PortAndPasswordMayBeMissing) {
  const ServerAddress address = parse_server_address("postgres://u@h/d");
  EXPECT_FALSE(address.contains("port"));
  EXPECT_FALSE(address.contains("password"));
  EXPECT_FALSE(is_socket(address));
  EXPECT_EQ(to_string(address), "postgresql://u@h/d");
}

TEST(PostgresAddress, Ipv6SocketsAndSeveralHosts) {
  EXPECT_EQ(parse_server_address("postgresql://u@[::1]/d").at("host"), "::1");
  const ServerAddress socket = parse_server_address("postgresql://u:p@/d?host=/run/a%20b");
  EXPECT_TRUE(is_socket(socket));
  EXPECT_EQ(to_string(socket), "postgresql://u@/d?host=/run/a b");
  EXPECT_EQ(refusal("postgresql://u:p@a:1,b:2/d"), "postgresql://u@a,b:1,2/d");
}

TEST(PostgresAddress, OtherParametersOfTheLibraryAreTaken) {
  const ServerAddress address =
      parse_server_address("postgresql://u@h/d?target_session_attrs=read-write");
  EXPECT_EQ(address.at("target_session_attrs"), "read-write");
}

TEST(PostgresAddress, WhatIsWrongIsNamedAndNoPasswordTold) {
  for (const auto& [url, what] : std::initializer_list<std::pair<const char*, const char*>>{
           {"http://u@h/d", "expected postgresql://"},
           {"host=h user=u password=secret dbname=d", "expected postgresql://"},
           {"postgresql://u:secret@h", "database is missing"},
           {"postgresql://u:secret@h/", "database is missing"},
           {"postgresql://h/d", "user is missing"},
           {"postgresql://u:secret@/d", "host is missing"},
           {"postgresql://u:secret@h:0/d", "port"},
           {"postgresql://u:secret@h:65536/d", "port"},
           {"postgresql://u:secret@h:5432x/d", "port"},
           {"postgresql://u:secret@[::1/d", "]"},
           {"postgresql://u:secret@[::1]x/d", "expected"},
           {"postgresql://u:secret%4@h/d", "percent-encoded"},
           {"postgresql://u:secret%4G@h/d", "percent-encoded"},
           {"postgresql://u:sec/secret@h/d", "%2F"},
           {"postgresql://u:1234/secret@h/d", "%2F"},
           {"postgresql://u:secret@h/d?nonsense=1", "invalid URI query parameter"},
           {"postgresql://u:secret@h/d?sslmode=require", "there is the option 'tls'"},
           {"postgresql://u:secret@h/d?sslkey=k", "there is the option 'tls_key'"},
           {"postgresql://u:secret@h/d?client_encoding=LATIN1", "may not stand in the address"},
       }) {
    EXPECT_THAT(refusal(url), HasSubstr(what)) << url;
    EXPECT_THAT(refusal(url), Not(HasSubstr("secret"))) << url;
  }
}

}  // namespace
}  // namespace millrace
