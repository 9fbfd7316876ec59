#include "access.h"

#include <cstdlib>
#include <fstream>

#include "http_fixture.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class AccessTest : public HttpTest {
 protected:
  AccessTest()
      : folder_(fs::temp_directory_path() /
                ("source-http-" + std::to_string(::getpid()) + "-" +
                 ::testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::create_directories(folder_);
  }
  ~AccessTest() override {
    stop();
    fs::remove_all(folder_);
  }

  [[nodiscard]] std::string path(const std::string& name) const { return folder_ / name; }
  [[nodiscard]] std::string file(const std::string& name, const std::string& content) const {
    std::ofstream(folder_ / name, std::ios::binary) << content;
    return path(name);
  }
  [[nodiscard]] static bool shell(const std::string& command) {
    return std::system((command + " > /dev/null 2>&1").c_str()) == 0;
  }
  /// A key and a certificate for 127.0.0.1 that `authority` signs; an authority if that is empty.
  [[nodiscard]] bool certificate(const std::string& name, const std::string& authority) const {
    const std::string base = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=" + name +
                             " -addext subjectAltName=IP:127.0.0.1 -keyout " + path(name + ".key") +
                             " -out " + path(name + ".pem");
    if (authority.empty()) return shell(base);
    return shell("openssl req -newkey rsa:2048 -nodes -subj /CN=" + name + " -keyout " +
                 path(name + ".key") + " -out " + path(name + ".csr")) &&
           shell("openssl x509 -req -days 2 -in " + path(name + ".csr") + " -CA " +
                 path(authority + ".pem") + " -CAkey " + path(authority + ".key") +
                 " -CAcreateserial -extfile " + file("extension", "subjectAltName=IP:127.0.0.1\n") +
                 " -out " + path(name + ".pem"));
  }
  /// The status of a POST by curl; "000" without an answer.
  [[nodiscard]] std::string curl(const std::string& arguments) const {
    const std::string out = path("status");
    [[maybe_unused]] const bool fine =
        std::system(("curl -s -o " + path("body") + " -w '%{http_code}' " + arguments +
                     " --data-binary @" + file("x.pcap", classic(2000, 500)) + " " + url_ +
                     "/v1/captures > " + out + " 2> " + path("error"))
                        .c_str()) == 0;
    std::ifstream in(out);
    std::string status;
    in >> status;
    return status;
  }

  fs::path folder_;
};

TEST_F(AccessTest, BearerTokens) {
  options_.tokens = file("tokens", "# agents\nfirst-token\n\nsecond-token\r\n");
  start();
  Client one = client();
  EXPECT_EQ(one.post(classic(1), "Authorization: Bearer first-token\r\n").status, 200);
  EXPECT_EQ(one.post(classic(1), "Authorization: bearer  second-token\r\n").status, 200);
  for (const char* wrong :
       {"", "Authorization: Bearer third-token\r\n", "Authorization: Bearer first\r\n",
        "Authorization: Bearer # agents\r\n", "Authorization: Bearer \r\n",
        "Authorization: Basic Zmlyc3QtdG9rZW4=\r\n", "Authorization: first-token\r\n"}) {
    const Reply reply = one.post(classic(1), wrong);
    EXPECT_EQ(reply.status, 401) << wrong;
    EXPECT_THAT(reply.head, HasSubstr("WWW-Authenticate: Bearer\r\n"));
  }
  one.send("GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(one.receive().status, 200);
  EXPECT_EQ(count("uploads-unauthorized"), 7U);
  EXPECT_EQ(next_.packets(), 2U);
  for (const auto& [level, message] : context_.messages()) {
    EXPECT_THAT(message, Not(HasSubstr("first-token")));
  }
}

TEST_F(AccessTest, TlsWithClientCertificates) {
  if (!shell("command -v curl && command -v openssl")) GTEST_SKIP() << "needs curl and openssl";
  ASSERT_TRUE(certificate("authority", ""));
  ASSERT_TRUE(certificate("server", "authority"));
  ASSERT_TRUE(certificate("agent", "authority"));
  ASSERT_TRUE(certificate("stranger", ""));
  options_.certificate = path("server.pem");
  options_.key = path("server.key");
  options_.client_ca = path("authority.pem");
  options_.tokens = file("tokens", "t\n");
  start();
  EXPECT_TRUE(url_.starts_with("https://"));
  const std::string trust = "-H 'Authorization: Bearer t' --cacert " + path("authority.pem");
  const std::string agent = " --cert " + path("agent.pem") + " --key " + path("agent.key");
  const std::string stranger = " --cert " + path("stranger.pem") + " --key " + path("stranger.key");
  EXPECT_EQ(curl(trust + agent), "200");
  EXPECT_EQ(curl("--cacert " + path("authority.pem") + agent), "401");
  EXPECT_EQ(curl(trust), "000");
  EXPECT_EQ(curl(trust + stranger), "000");
  EXPECT_EQ(curl(trust + agent + " --tls-max 1.1"), "000");
  Client plain = client();
  EXPECT_EQ(plain.post(classic(1)).status, 0) << "no TLS, no answer";
  EXPECT_EQ(next_.packets(), 2000U);
  stop();

  options_.client_certificate = ClientCertificate::optional;
  stop_ = {};
  start();
  EXPECT_EQ(curl(trust), "200");
  EXPECT_EQ(curl(trust + stranger), "000");
}

TEST_F(AccessTest, MistakesAreConfigurationErrors) {
  const auto wrong = [this](const char* option, const auto& change) {
    HttpOptions options;
    options.listen = "127.0.0.1:0";
    change(options);
    try {
      SourceHttp(options).open(context_);
      ADD_FAILURE() << "nothing was thrown for " << option;
    } catch (const ConfigError& error) {
      EXPECT_EQ(error.option(), option) << error.what();
      return std::string(error.what());
    }
    return std::string();
  };
  start();
  EXPECT_THAT(wrong("listen", [&](auto& o) { o.listen = "127.0.0.1:" + std::to_string(port_); }),
              HasSubstr("Address already in use"));
  for (const char* listen : {"8080", "::1:8080", ":8080", "127.0.0.1:x", "127.0.0.1:70000",
                             "127.0.0.1:", "203.0.113.1:0"}) {
    wrong("listen", [&](auto& o) { o.listen = listen; });
  }
  wrong("tokens", [&](auto& o) { o.tokens = path("none"); });
  wrong("tokens", [&](auto& o) { o.tokens = file("empty", "# nothing\n"); });
  wrong("tokens", [&](auto& o) { o.tokens = file("blank", "a b\n"); });
  wrong("certificate", [&](auto& o) {
    o.certificate = path("none");
    o.key = path("none");
  });
  if (shell("command -v openssl")) {
    ASSERT_TRUE(certificate("one", ""));
    ASSERT_TRUE(certificate("two", ""));
    EXPECT_THAT(wrong("key",
                      [&](auto& o) {
                        o.certificate = path("one.pem");
                        o.key = path("two.key");
                      }),
                HasSubstr("two.key"));
  }
  HttpOptions options;
  options.key = "x";
  options.client_ca = "x";
  Findings findings;
  check_http_options(options, findings);
  EXPECT_EQ(findings.list().size(), 2U);
}

TEST_F(AccessTest, OtherMachinesNeedACredential) {
  const auto findings = [](const auto& change) {
    HttpOptions options;
    options.listen = "0.0.0.0:0";
    change(options);
    Findings found;
    check_http_options(options, found);
    return found.list().size();
  };
  EXPECT_EQ(findings([](auto&) {}), 1U);
  EXPECT_EQ(findings([](auto& o) { o.listen = "[::]:0"; }), 1U);
  EXPECT_EQ(findings([](auto& o) { o.listen = "*:0"; }), 1U);
  EXPECT_EQ(findings([](auto& o) { o.listen = "192.0.2.1:0"; }), 1U);
  EXPECT_EQ(findings([](auto& o) { o.listen = "[::ffff:192.0.2.1]:0"; }), 1U);
  EXPECT_EQ(findings([](auto& o) { o.certificate = o.key = "x"; }), 1U) << "TLS lets anybody in";
  EXPECT_EQ(findings([](auto& o) {
              o.certificate = o.key = o.client_ca = "x";
              o.client_certificate = ClientCertificate::optional;
            }),
            1U);
  EXPECT_EQ(findings([](auto& o) { o.certificate = o.key = o.client_ca = "x"; }), 0U);
  EXPECT_EQ(findings([](auto& o) { o.tokens = "x"; }), 0U);
  EXPECT_EQ(findings([](auto& o) { o.insecure = true; }), 0U);
  EXPECT_EQ(findings([](auto& o) { o.listen = "localhost:0"; }), 0U);
  EXPECT_EQ(findings([](auto& o) { o.listen = "127.3.2.1:0"; }), 0U);
  EXPECT_EQ(findings([](auto& o) { o.listen = "[::1]:0"; }), 0U);
  HttpOptions options;
  options.listen = "0.0.0.0:0";
  EXPECT_THROW(SourceHttp(options).open(context_), ConfigError);

  options_.listen = "0.0.0.0:0";
  options_.insecure = true;
  start();
  bool warned = false;
  for (const auto& [level, message] : context_.messages()) {
    warned |= level == LogLevel::warning && message.starts_with("insecure = true");
  }
  EXPECT_TRUE(warned);
  EXPECT_EQ(client().post(classic(1)).status, 200);
}

TEST_F(AccessTest, ListensOnIpv6) {
  options_.listen = "[::1]:0";
  try {
    start();
  } catch (const ConfigError& error) {
    source_.reset();
    GTEST_SKIP() << error.what();
  }
  EXPECT_TRUE(url_.starts_with("http://[::1]:"));
  if (!shell("command -v curl")) GTEST_SKIP() << "needs curl";
  EXPECT_EQ(curl("-g"), "200");
}

}  // namespace
}  // namespace millrace
