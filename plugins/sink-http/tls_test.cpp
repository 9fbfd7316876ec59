#include "support/http_certificates.h"
#include "upload_fixture.h"

namespace millrace {
namespace {

namespace ssl = boost::asio::ssl;
using ::testing::IsEmpty;

class TlsTest : public UploadTest {
 protected:
  void SetUp() override {
    if (!certificates_.possible()) GTEST_SKIP() << "needs openssl";
    ASSERT_TRUE(certificates_.make("authority", "") && certificates_.make("stranger", "") &&
                certificates_.make("server", "authority") &&
                certificates_.make("agent", "authority"));
    certificates_.use(tls_, "server", "authority");
    server_ = std::make_unique<TestServer>(TestServer::Rule{}, 0, &tls_);
    options_.url = server_->url();
    options_.finish = 200ms;
  }

  void trust(const std::string& authority, const std::string& me) {
    options_.ca = authority.empty() ? "" : certificates_.path(authority + ".pem");
    options_.certificate = me.empty() ? "" : certificates_.path(me + ".pem");
    options_.key = me.empty() ? "" : certificates_.path(me + ".key");
  }

  TestCertificates certificates_{folder_};
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
  const auto fails = [&](const char* counter, const std::string& authority, const std::string& me) {
    fs::remove_all(options_.spool);
    trust(authority, me);
    options_.chunk_age = 0ns;
    start();
    write(10);
    EXPECT_TRUE(eventually([&] { return count(counter) != 0; }));
    finish();
    EXPECT_THAT(server_->heads(), IsEmpty());
    EXPECT_EQ(count("left"), 1U);
    EXPECT_EQ(context_->handled_items(), 10U);
  };
  fails("refused", "stranger", "agent");
  EXPECT_THAT(context_->failing("server"), ::testing::HasSubstr("certificate"));
  fails("refused", "", "agent");  // the system's authorities do not know it
  fails("retried", "authority", "");
  fails("retried", "authority", "stranger");
}

TEST_F(TlsTest, OldProtocolsAreNotSpoken) {
  tls_.set_options(ssl::context::no_tlsv1_2 | ssl::context::no_tlsv1_3);
  trust("authority", "agent");
  options_.chunk_age = 0ns;
  start();
  write(10);
  EXPECT_TRUE(eventually([&] { return count("retried") != 0; }));
  finish();
  EXPECT_THAT(server_->heads(), IsEmpty());
  EXPECT_EQ(count("left"), 1U);
}

}  // namespace
}  // namespace millrace
