#include "mysql_fixture.h"
#include "support/tls_server_test.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class SinkMysqlTlsTest : public testing::TlsServerTest<SinkMysqlTest> {
 protected:
  void SetUp() override {
    TlsServerTest::SetUp();
    if (IsSkipped()) return;
    make_user("encrypted", "IDENTIFIED BY 'secret' REQUIRE SSL");
    make_user("known", "REQUIRE SUBJECT '/CN=probe'");
    options_.server = at_host("encrypted:secret", "localhost");
  }
  [[nodiscard]] std::string at_host(const std::string& user, const std::string& host) const {
    return "mysql://" + user + "@" + host + ":" + std::to_string(services()->port(server())) + "/" +
           database_;
  }
};

TEST_F(SinkMysqlTlsTest, OffIsNotEncrypted) {
  EXPECT_THAT(refusal(), AllOf(StartsWith("server: "), HasSubstr("Access denied")));
  EXPECT_EQ(query("SHOW SESSION STATUS LIKE 'Ssl_cipher'"), "Ssl_cipher;;");
}

TEST_F(SinkMysqlTlsTest, RequiredIsEncrypted) {
  options_.tls = Tls::required;
  run({verdict(1, "a")});
  EXPECT_EQ(query("SELECT COUNT(*) FROM sessions"), "1;");
  Connection connection;
  ConnectionOptions options = root_options();
  options.tls = Tls::required;
  connection.open(options);
  EXPECT_THAT(connection.query("SHOW SESSION STATUS LIKE 'Ssl_cipher'").at(0).at(1).value_or(""),
              HasSubstr("_"));
}

TEST_F(SinkMysqlTlsTest, VerifyTakesTheRightServer) {
  options_.tls = Tls::verify;
  options_.tls_ca = certificates()->file("ca.pem");
  run({verdict(1, "a")});
  EXPECT_EQ(query("SELECT COUNT(*) FROM sessions"), "1;");
}

TEST_F(SinkMysqlTlsTest, VerifyRefusesAnotherAuthority) {
  options_.tls = Tls::verify;
  options_.tls_ca = certificates()->file("other.pem");
  EXPECT_THAT(refusal(), AllOf(StartsWith("tls: "), HasSubstr("2026")));
}

TEST_F(SinkMysqlTlsTest, VerifyRefusesAnotherName) {
  options_.tls = Tls::verify;
  options_.tls_ca = certificates()->file("ca.pem");
  options_.server = at_host("encrypted:secret", "127.0.0.1");
  EXPECT_THAT(refusal(), AllOf(StartsWith("tls: "), HasSubstr("2026")));
}

TEST_F(SinkMysqlTlsTest, ClientShowsItsCertificate) {
  options_.server = at_host("known", "localhost");
  options_.tls = Tls::required;
  EXPECT_THAT(refusal(), StartsWith("server: "));
  options_.tls_cert = certificates()->file("client.pem");
  options_.tls_key = certificates()->file("client.key");
  EXPECT_EQ(refusal(), "accepted");
}

TEST_F(SinkMysqlTlsTest, EncryptionHoldsAfterAReconnect) {
  options_.tls = Tls::verify;
  options_.tls_ca = certificates()->file("ca.pem");
  SinkMysql sink(options_);
  sink.open(context_);
  services()->restart(server());
  Batch<Verdict> batch = batch_of({verdict(1, "a")});
  EXPECT_THROW(sink.write(batch), Transient);
  give(sink, batch);  // this user may not come without
  EXPECT_EQ(query("SELECT COUNT(*) FROM sessions"), "1;");
}

TEST_F(SinkMysqlTlsTest, FileThatIsMissingIsNamed) {
  options_.tls = Tls::verify;
  options_.tls_ca = certificates()->file("nothing.pem");
  EXPECT_THAT(refusal(), AllOf(StartsWith("tls_ca: cannot read"), HasSubstr("nothing.pem")));
}

using SinkMysqlNoTlsTest = SinkMysqlTest;

TEST_F(SinkMysqlNoTlsTest, ServerWithoutTlsIsRefused) {
  options_.tls = Tls::required;
  EXPECT_THAT(refusal(), StartsWith("tls: "));
}

}  // namespace
}  // namespace millrace
