#include "rabbit_url.h"

#include <stdexcept>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {
namespace {

TEST(RabbitUrlTest, PartsAndDefaults) {
  const RabbitUrl all = parse_rabbit_url("amqps://us%40er:p%3Aw@broker.example:99/v%2Fhost");
  EXPECT_TRUE(all.tls);
  EXPECT_EQ(all.user, "us@er");
  EXPECT_EQ(all.password, "p:w");
  EXPECT_EQ(all.host, "broker.example");
  EXPECT_EQ(all.port, 99);
  EXPECT_EQ(all.vhost, "v/host");
  const RabbitUrl least = parse_rabbit_url("amqp://localhost");
  EXPECT_FALSE(least.tls);
  EXPECT_EQ(least.user, "guest");
  EXPECT_EQ(least.port, 5672);
  EXPECT_EQ(least.vhost, "/");
  EXPECT_EQ(parse_rabbit_url("amqps://h/").port, 5671);
  EXPECT_EQ(parse_rabbit_url("amqps://h/").vhost, "/");
  EXPECT_EQ(parse_rabbit_url("amqp://[::1]:7/x").host, "::1");
  EXPECT_EQ(parse_rabbit_url("amqp://[::1]:7/x").port, 7);
}

TEST(RabbitUrlTest, MistakesAreNamedWithoutThePassword) {
  for (const std::string wrong :
       {"http://h", "amqp://", "amqp://u:secret@", "amqp://u:secret@h:0", "amqp://u:secret@h:70000",
        "amqp://u:secret@h:x", "amqp://u:sec%zzret@h", "amqp://u:secret@h/a/b",
        "amqp://u:secret@[::1", "amqp://u:secret@h1:5672,h2:5672", "amqp://u:secret@h1,h2",
        "amqp://u:secret@h 1"}) {
    try {
      (void)parse_rabbit_url(wrong);
      ADD_FAILURE() << wrong;
    } catch (const std::runtime_error& error) {
      EXPECT_THAT(error.what(), ::testing::Not(::testing::HasSubstr("secret"))) << wrong;
    }
  }
}

}  // namespace
}  // namespace millrace
