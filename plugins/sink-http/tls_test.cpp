#include <cstdlib>

#include "upload_fixture.h"

namespace millrace {
namespace {

namespace ssl = boost::asio::ssl;
using ::testing::IsEmpty;

class TlsTest : public UploadTest {
 protected:
  void SetUp() override {
    if (!shell("command -v openssl")) GTEST_SKIP() << "needs openssl";
    ASSERT_TRUE(certificate("authority", ""));
    ASSERT_TRUE(certificate("server", "authority"));
    ASSERT_TRUE(certificate("agent", "authority"));
    ASSERT_TRUE(certificate("stranger", ""));
    tls_.use_certificate_chain_file(path("server.pem"));
    tls_.use_private_key_file(path("server.key"), ssl::context::pem);
    tls_.load_verify_file(path("authority.pem"));
    tls_.set_verify_mode(ssl::verify_peer | ssl::verify_fail_if_no_peer_cert);
    server_ = std::make_unique<TestServer>(TestServer::Rule{}, 0, &tls_);
    options_.url = server_->url();
    options_.finish = 200ms;
  }

  [[nodiscard]] std::string path(const std::string& name) const { return folder_ / name; }
  [[nodiscard]] static bool shell(const std::string& command) {
    return std::system((command + " > /dev/null 2>&1").c_str()) == 0;
  }
  /// A key and a certificate for 127.0.0.1 that `authority` signs; an authority if that is empty.
  [[nodiscard]] bool certificate(const std::string& name, const std::string& authority) const {
    const std::string key = " -subj /CN=" + name + " -keyout " + path(name + ".key");
    if (authority.empty()) {
      return shell(
          "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -addext "
          "subjectAltName=IP:127.0.0.1" +
          key + " -out " + path(name + ".pem"));
    }
    std::ofstream(path("extension")) << "subjectAltName=IP:127.0.0.1\n";
    return shell("openssl req -newkey rsa:2048 -nodes" + key + " -out " + path("request")) &&
           shell("openssl x509 -req -days 2 -in " + path("request") + " -CA " +
                 path(authority + ".pem") + " -CAkey " + path(authority + ".key") +
                 " -CAcreateserial -extfile " + path("extension") + " -out " + path(name + ".pem"));
  }
  void trust(const std::string& authority, const std::string& me) {
    options_.ca = authority.empty() ? "" : path(authority + ".pem");
    options_.certificate = me.empty() ? "" : path(me + ".pem");
    options_.key = me.empty() ? "" : path(me + ".key");
  }

  ssl::context tls_{ssl::context::tls_server};
};

TEST_F(TlsTest, WithAClientCertificate) {
  trust("authority", "agent");
  options_.finish = 20s;
  start();
  write(10000);
  finish();
  EXPECT_EQ(numbers_in(server_->taken()), from_to(0, 10000));
}

TEST_F(TlsTest, WhoIsNotTrustedGetsNothingAndNothingIsLost) {
  const auto refused = [&](const std::string& authority, const std::string& me) {
    fs::remove_all(options_.spool);
    trust(authority, me);
    start();
    write(10);
    finish();
    EXPECT_THAT(server_->heads(), IsEmpty());
    EXPECT_EQ(count("left"), 1U);
    EXPECT_EQ(context_->handled_items(), 10U);
  };
  refused("stranger", "agent");
  EXPECT_GE(count("refused"), 1U);
  EXPECT_TRUE(logged("certificate"));
  refused("", "agent");  // the system's authorities do not know it
  EXPECT_GE(count("refused"), 1U);
  refused("authority", "");
  refused("authority", "stranger");
}

TEST_F(TlsTest, OldProtocolsAreNotSpoken) {
  tls_.set_options(ssl::context::no_tlsv1_2 | ssl::context::no_tlsv1_3);
  trust("authority", "agent");
  start();
  write(10);
  finish();
  EXPECT_THAT(server_->heads(), IsEmpty());
  EXPECT_EQ(count("left"), 1U);
}

}  // namespace
}  // namespace millrace
