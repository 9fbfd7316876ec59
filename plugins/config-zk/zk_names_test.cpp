#include "zk_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {
namespace {

using ::testing::HasSubstr;

std::string fault(std::string_view servers) {
  try {
    (void)parse_zk_servers(servers);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "accepted";
}

TEST(ZkNames, ServersAndTheirFolder) {
  EXPECT_EQ(parse_zk_servers("a:2181,10.0.0.1:2,[::1]:3").hosts, "a:2181,10.0.0.1:2,[::1]:3");
  EXPECT_EQ(parse_zk_servers("a:2181").folder, "");
  EXPECT_EQ(parse_zk_servers("a:2181/").folder, "");
  EXPECT_EQ(parse_zk_servers("a:2181,b:2181/x/y").hosts, "a:2181,b:2181");
  EXPECT_EQ(parse_zk_servers("a:2181,b:2181/x/y").folder, "/x/y");
}

TEST(ZkNames, ServersThatCannotBeRight) {
  EXPECT_THAT(fault(""), HasSubstr("expected host:port"));
  EXPECT_THAT(fault("a"), HasSubstr("'a' is no host:port"));
  EXPECT_THAT(fault("a:1,"), HasSubstr("'' is no host:port"));
  EXPECT_THAT(fault("a:0"), HasSubstr("no number from 1 to 65535"));
  EXPECT_THAT(fault("a:66000"), HasSubstr("no number from 1 to 65535"));
  EXPECT_THAT(fault("a:2181x"), HasSubstr("no number from 1 to 65535"));
  EXPECT_THAT(fault("::1:2181"), HasSubstr("[ADDRESS]:PORT"));
  EXPECT_THAT(fault("a:1; b:1"), HasSubstr("is no host:port"));
  EXPECT_THAT(fault("zk://a:1"), HasSubstr("no number"));
  EXPECT_THAT(fault("a:1/x//y"), HasSubstr("a part of it is empty"));
}

TEST(ZkNames, Paths) {
  for (const char* path : {"/a", "/a/b", "/a b/\xC3\xA4", "/zookeeper2", "/a/..b"}) {
    EXPECT_EQ(path_fault(path), "") << path;
  }
  for (const char* path : {"", "a", "/", "/a/", "//a", "/a/../b", "/./a", "/a\n", "/a\x7F", "/\xFF",
                           "/\xC2\x80", "/\xEE\x80\x80", "/\xF0\x9F\x98\x80", "/\xC0\xAF",
                           "/\xE2\x82", "/zookeeper", "/zookeeper/quota"}) {
    EXPECT_NE(path_fault(path), "") << path;
  }
  EXPECT_EQ(parent_of("/a"), "/");
  EXPECT_EQ(parent_of("/a/b/c"), "/a/b");
}

TEST(ZkNames, TextIsCutBetweenCharacters) {
  EXPECT_EQ(cut_text("abc", 5), "abc");
  EXPECT_EQ(cut_text("abc", 2), "ab");
  EXPECT_EQ(cut_text("a\xC3\xA4z", 2), "a");
  EXPECT_EQ(cut_text("a\xC3\xA4z", 3), "a\xC3\xA4");
}

}  // namespace
}  // namespace millrace
