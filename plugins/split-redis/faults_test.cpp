// Servers that go away, forget their scripts, or want a password.

#include <cstdlib>

#include "redis_fixture.h"

namespace millrace {
namespace {

class FaultsTest : public RedisTest {
 protected:
  /// A Redis that is killed must have kept what it acknowledged, also where the disk is busy.
  static void SetUpTestSuite() { start({"--option", "redis=--appendfsync always"}); }

  /// 200 sessions of 1 to 30 packets each, mixed.
  std::vector<Packet> traffic() {
    std::vector<Packet> list;
    for (int i = 0; i < 30; ++i) {
      for (int flow = i; flow < 200; ++flow) {
        if (flow % 30 < i) continue;
        list.push_back(maker_.make({.src_port = static_cast<std::uint16_t>(1000 + flow),
                                    .payload = std::string(static_cast<std::size_t>(flow), 'x')},
                                   i * 10ms));
      }
    }
    return list;
  }
};

TEST_F(FaultsTest, RedisThatIsKilledAndRestartedLosesAndDoublesNothing) {
  options_.timeout = options_.connect_timeout = 1s;
  const auto list = traffic();
  const Oracle oracle(list, options_);
  for (const char* how : {"kill", "restart"}) {
    SCOPED_TRACE(how);
    persist([&] { ask({"FLUSHALL"}); });
    Receiver receiver(options_);
    const std::size_t size = 300;  // not waited for
    std::size_t batches = 0;
    for (std::size_t i = 0; i < list.size(); i += size) {
      if (++batches % 4 == 2) {
        if (how == std::string("kill")) {
          services->kill("redis");
          services->start("redis");
        } else {
          services->restart("redis");
        }
      }
      receiver.give({list.begin() + static_cast<std::ptrdiff_t>(i),
                     list.begin() + static_cast<std::ptrdiff_t>(std::min(list.size(), i + size))});
    }
    receiver.flush();
    EXPECT_GT(batches, 5U);
    EXPECT_EQ(receiver.context.handled_items(), oracle.counts.stored);
    EXPECT_EQ(receiver.context.dropped_for("after-due"), oracle.counts.after_due);
    const auto tickets = receiver.take_tickets();
    Claimer claimer(claim_options_);
    SeenMap got;
    for (std::size_t i = 0; i < tickets.size(); i += 40) {
      claimer.give(
          {tickets.begin() + static_cast<std::ptrdiff_t>(i),
           tickets.begin() + static_cast<std::ptrdiff_t>(std::min(tickets.size(), i + 40))});
      if (i == 80) services->restart("redis");
      for (auto& [id, text] : claimer.take()) {
        EXPECT_TRUE(got.emplace(id, text).second) << "twice: " << text;
      }
      claimer.wait(static_cast<int>(i / 40 + 1));  // else the other ticket finds a lease
    }
    claimer.close();
    EXPECT_EQ(claimer.receipts.failed(), 0);
    EXPECT_EQ(claimer.receipts.pending(), 0);
    EXPECT_EQ(got, oracle.sessions);
    redis_->close();
    EXPECT_EQ(waiting(), 0);
  }
}

TEST_F(FaultsTest, RedisThatDoesNotAnswerIsTriedAgain) {
  options_.timeout = 200ms;
  const auto list = traffic();
  Receiver receiver(options_);
  receiver.give({list.begin(), list.begin() + 300});
  services->pause("redis");
  Batch<Packet> batch({list.begin() + 300, list.begin() + 600});
  batch.receipt = receiver.receipts.make();
  Output<Ticket> out(receiver.recorder);
  receiver.stage().process(batch, out);  // it is taken
  Batch<Packet> tick;
  EXPECT_THROW(receiver.stage().process(tick, out), Transient);
  services->resume("redis");
  receiver.give({list.begin() + 600, list.end()});
  receiver.flush();
  EXPECT_EQ(claim(receiver.take_tickets()), Oracle(list, options_).sessions);
}

TEST_F(FaultsTest, ConnectionsThatAreCutAreMadeAnew) {
  const auto list = traffic();
  Receiver receiver(options_);
  for (std::size_t i = 0; i < list.size(); i += 300) {
    receiver.give({list.begin() + static_cast<std::ptrdiff_t>(i),
                   list.begin() + static_cast<std::ptrdiff_t>(std::min(list.size(), i + 300))});
    ask({"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"});
  }
  receiver.flush();
  EXPECT_EQ(claim(receiver.take_tickets()), Oracle(list, options_).sessions);
}

TEST_F(FaultsTest, ScriptsThatAreFlushed) {
  const auto list = traffic();
  Receiver receiver(options_);
  for (std::size_t i = 0; i < list.size(); i += 300) {
    receiver.give({list.begin() + static_cast<std::ptrdiff_t>(i),
                   list.begin() + static_cast<std::ptrdiff_t>(std::min(list.size(), i + 300))});
    ask({"SCRIPT", "FLUSH"});
  }
  receiver.flush();
  EXPECT_EQ(claim(receiver.take_tickets()), Oracle(list, options_).sessions);
}

TEST_F(FaultsTest, CallThatComesLaterThanTheNextOneIsNotLost) {
  // What a call finds when the one before it was not executed.
  Receiver receiver(options_);
  receiver.give(traffic());
  receiver.flush();
  for (const std::string& key : keys("*}q*")) ask({"SET", key, "0"});
  const auto list = traffic();
  receiver.give({list.begin(), list.begin() + 300});
  receiver.give({list.begin() + 300, list.begin() + 600});
  receiver.flush();
  EXPECT_EQ(receiver.receipts.failed(), 0);
  EXPECT_EQ(receiver.context.dropped_for("repeated"), 0U);
}

TEST_F(FaultsTest, RedisThatIsNotThereAtStartIsWaitedFor) {
  services->stop("redis");
  redis_->close();
  Receiver receiver(options_);
  Claimer claimer(claim_options_);
  Batch<Packet> batch({maker_.make({}, 0s)});
  Output<Ticket> out(receiver.recorder);
  EXPECT_THROW(receiver.stage().process(batch, out), Transient);
  services->start("redis");
  receiver.give(batch.items);
  receiver.flush();
  EXPECT_EQ(claim(receiver.take_tickets()).size(), 1U);
}

class AddressTest : public ::testing::Test {
 protected:
  static std::string refusal(const std::string& server) {
    SplitRedisOptions options;
    options.server = server;
    testing::TestContext context;
    SplitRedis stage(options);
    try {
      stage.open(context);
    } catch (const ConfigError& error) {
      EXPECT_EQ(error.option(), "server");
      return error.what();
    }
    for (const auto& [level, text] : context.messages()) {
      if (text.find("clock") == std::string::npos) return text;  // which stands still here
    }
    return "accepted";
  }
};

TEST_F(AddressTest, PasswordDatabaseAndUnixSocket) {
  const auto folder =
      std::filesystem::temp_directory_path() / ("split-redis-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const std::string socket = folder / "redis.sock";
  {
    testing::Services services({"redis"}, {"--option", "redis=--unixsocket " + socket});
    if (!services.missing().empty()) GTEST_SKIP() << services.missing();
    const std::string at = "127.0.0.1:" + std::to_string(services.port("redis"));
    RedisConnection admin(parse_redis_url("redis://" + at), RedisTimeouts{});
    admin.open();
    RedisCommand password;
    password.put(std::string_view("CONFIG"), std::string_view("SET"),
                 std::string_view("requirepass"), std::string_view("p@ss/word"));
    EXPECT_EQ(text_of(*admin.call(password)), "OK");
    EXPECT_THAT(refusal("redis://" + at), ::testing::HasSubstr("NOAUTH"));
    EXPECT_THAT(refusal("redis://:wrong@" + at),
                ::testing::AllOf(::testing::HasSubstr("WRONGPASS"),
                                 ::testing::Not(::testing::HasSubstr("wrong@"))));
    EXPECT_EQ(refusal("redis://:p%40ss%2Fword@" + at), "accepted");
    EXPECT_EQ(refusal("redis://default:p%40ss%2Fword@" + at + "/3"), "accepted");
    EXPECT_THAT(refusal("redis://:p%40ss%2Fword@" + at + "/99"), ::testing::HasSubstr("DB index"));
    EXPECT_EQ(refusal("unix://:p%40ss%2Fword@" + socket + "?db=2"), "accepted");

    // Data goes into the database that is named.
    PacketMaker maker;
    SplitRedisOptions options;
    options.server = "unix://:p%40ss%2Fword@" + socket + "?db=2";
    Receiver receiver(options);
    receiver.give({maker.make({}, 0s)});
    receiver.flush();
    RedisConnection connection(parse_redis_url(options.server), RedisTimeouts{});
    connection.open();
    RedisCommand command;
    command.put(std::string_view("DBSIZE"));
    EXPECT_GT(connection.call(command)->integer, 0);
    ClaimOptions claim;
    claim.server = "redis://:p%40ss%2Fword@" + at + "/2";
    Claimer claimer(claim);
    claimer.give(receiver.take_tickets());
    EXPECT_EQ(claimer.take().size(), 1U);
    claimer.wait(1);
  }
  std::filesystem::remove_all(folder);
}

TEST_F(AddressTest, TlsWithACertificateThatIsChecked) {
  const auto folder =
      std::filesystem::temp_directory_path() / ("split-redis-tls-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const std::string key = folder / "key.pem";
  const std::string certificate = folder / "certificate.pem";
  const std::string make =
      "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 "
      "-nodes -days 1 -subj /CN=test -addext subjectAltName=IP:127.0.0.1 "
      "-keyout " +
      key + " -out " + certificate + " 2>/dev/null";
  if (std::system(make.c_str()) != 0) GTEST_SKIP() << "the program openssl is not installed";
  {
    testing::Services services({"redis"});
    if (!services.missing().empty()) GTEST_SKIP() << services.missing();
    RedisConnection admin(parse_redis_url(services.address("redis")), RedisTimeouts{});
    admin.open();
    const auto tell = [&](const std::string& name, const std::string& value) {
      RedisCommand command;
      command.put(std::string_view("CONFIG"), std::string_view("SET"), std::string_view(name),
                  std::string_view(value));
      return std::string(text_of(*admin.call(command)));
    };
    EXPECT_EQ(tell("tls-auth-clients", "no"), "OK");
    RedisCommand both;
    both.put(std::string_view("CONFIG"), std::string_view("SET"), std::string_view("tls-cert-file"),
             std::string_view(certificate), std::string_view("tls-key-file"), std::string_view(key),
             std::string_view("tls-ca-cert-file"), std::string_view(certificate));
    EXPECT_EQ(text_of(*admin.call(both)), "OK");
    // A port that was free just now.
    std::uint16_t port = services.port("redis");
    std::string answer;
    for (int i = 0; i < 50 && answer != "OK"; ++i) {
      port = static_cast<std::uint16_t>(port > 60000 ? 20000 : port + 1);
      answer = tell("tls-port", std::to_string(port));
    }
    ASSERT_EQ(answer, "OK");
    SplitRedisOptions options;
    options.server = "rediss://127.0.0.1:" + std::to_string(port);
    EXPECT_THAT(refusal(options.server), ::testing::HasSubstr("cannot be trusted"));
    options.ca = certificate;
    PacketMaker maker;
    std::vector<Packet> list;
    for (int i = 0; i < 3000; ++i) {
      list.push_back(maker.make({.src_port = static_cast<std::uint16_t>(i / 20),
                                 .payload = std::string(1000, static_cast<char>(i))},
                                i * 1ms));
    }
    Receiver receiver(options);
    receiver.give(list);
    receiver.flush();
    EXPECT_EQ(receiver.context.counter("reconnects").value(), 0U);
    ClaimOptions claim;
    claim.server = options.server;
    claim.ca = certificate;
    Claimer claimer(claim);
    claimer.give(receiver.take_tickets());
    EXPECT_EQ(claimer.take(), Oracle(list, options).sessions);
    claimer.wait(1);
    EXPECT_EQ(claimer.receipts.done(), 1);
  }
  std::filesystem::remove_all(folder);
}

TEST_F(AddressTest, ServerThatIsNotThereIsWarnedOf) {
  EXPECT_THAT(refusal("redis://127.0.0.1:1"), ::testing::HasSubstr("refused"));
}

TEST_F(AddressTest, WrongAddressesSayWhatIsExpected) {
  for (const char* wrong :
       {"", "localhost", "http://x", "redis://", "redis://x:y", "redis://x:70000", "redis://x/y",
        "redis://user@x", "redis://:%zz@x", "redis://:%4@x", "redis://[::1", "unix://relative",
        "unix:///x?db=y", "redis://x:1:2"}) {
    EXPECT_THAT(refusal(wrong), ::testing::HasSubstr("expected redis://")) << wrong;
  }
  EXPECT_THAT(refusal("redis://:secret-word@x:y"),
              ::testing::Not(::testing::HasSubstr("secret-word")));
}

TEST_F(AddressTest, EveryPartIsRead) {
  const RedisAddress a = parse_redis_url("rediss://us%3Aer:pa%20ss@[2001:db8::1]:7000/12");
  EXPECT_TRUE(a.tls);
  EXPECT_EQ(a.user, "us:er");
  EXPECT_EQ(a.password, "pa ss");
  EXPECT_EQ(a.host, "2001:db8::1");
  EXPECT_EQ(a.port, 7000);
  EXPECT_EQ(a.database, 12U);
  EXPECT_EQ(a.name(), "Redis at [2001:db8::1]:7000");
  const RedisAddress b = parse_redis_url("redis://cache");
  EXPECT_EQ(b.port, 6379);
  EXPECT_EQ(b.database, 0U);
  const RedisAddress c = parse_redis_url("unix:///run/with@sign.sock");
  EXPECT_EQ(c.unix_path, "/run/with@sign.sock");
}

}  // namespace
}  // namespace millrace
