#include <stdexcept>

#include <sys/stat.h>
#include <unistd.h>

#include "postgres_fixture.h"
#include "support/certificates.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class SinkPostgresTlsTest : public SinkPostgresTest {
 protected:
  static void SetUpTestSuite() {
    SinkPostgresTest::SetUpTestSuite();
    certificates() = std::make_unique<testing::Certificates>();
    if (!certificates()->made() || !services()->missing().empty()) return;
    const std::filesystem::path data = services()->folder() / "postgres/data";
    struct stat owner {};
    if (::stat(data.c_str(), &owner) != 0) throw std::runtime_error("no folder " + data.string());
    for (const char* name : {"ca.pem", "server.pem", "server.key"}) {
      const std::filesystem::path file = data / name;
      std::filesystem::copy_file(certificates()->file(name), file);
      // The server takes a key that is its user's alone.
      if (::chown(file.c_str(), owner.st_uid, owner.st_gid) != 0 ||
          ::chmod(file.c_str(), S_IRUSR) != 0) {
        throw std::runtime_error("cannot give away " + file.string());
      }
    }
    std::ofstream(data / "postgresql.conf", std::ios::app)
        << "ssl = on\nssl_ca_file = 'ca.pem'\nssl_cert_file = 'server.pem'\n"
           "ssl_key_file = 'server.key'\n";
    add_rules(
        "hostnossl all encrypted,probe 127.0.0.1/32 reject\n"
        "hostssl all encrypted 127.0.0.1/32 trust\n"
        "hostssl all probe 127.0.0.1/32 cert\n");
  }
  static void TearDownTestSuite() {
    SinkPostgresTest::TearDownTestSuite();
    certificates().reset();
  }
  static std::unique_ptr<testing::Certificates>& certificates() {
    static std::unique_ptr<testing::Certificates> made;
    return made;
  }
  void SetUp() override {
    if (!certificates()->made()) GTEST_SKIP() << "SKIPPED: openssl made no certificates";
    SinkPostgresTest::SetUp();
    if (IsSkipped()) return;
    for (const char* role : {"encrypted", "probe"}) {
      if (query(std::string("SELECT 1 FROM pg_roles WHERE rolname = '") + role + "'").empty()) {
        execute(std::string("CREATE ROLE ") + role + " LOGIN SUPERUSER");
      }
    }
    options_.server = url_at("encrypted", "localhost");
  }
};

TEST_F(SinkPostgresTlsTest, OffIsNotEncrypted) {
  EXPECT_THAT(refusal(), AllOf(StartsWith("server: "), HasSubstr("no encryption")));
  EXPECT_EQ(query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"), "f;");
}

TEST_F(SinkPostgresTlsTest, RequiredIsEncrypted) {
  options_.tls = Tls::required;
  run({verdict(1, "a")});
  EXPECT_EQ(query("SELECT count(*) FROM sessions"), "1;");
  Connection connection;
  ConnectionOptions options = root_options();
  options.tls = Tls::required;
  connection.open(options);
  EXPECT_EQ(
      connection.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").at(0).at(0),
      "t");
}

TEST_F(SinkPostgresTlsTest, VerifyTakesTheRightServer) {
  options_.tls = Tls::verify;
  options_.tls_ca = certificates()->file("ca.pem");
  run({verdict(1, "a")});
  EXPECT_EQ(query("SELECT count(*) FROM sessions"), "1;");
}

TEST_F(SinkPostgresTlsTest, VerifyRefusesAnotherAuthority) {
  options_.tls = Tls::verify;
  options_.tls_ca = certificates()->file("other.pem");
  EXPECT_THAT(refusal(), AllOf(StartsWith("tls: "), HasSubstr("certificate verify failed")));
}

TEST_F(SinkPostgresTlsTest, VerifyRefusesAnotherName) {
  options_.tls = Tls::verify;
  options_.tls_ca = certificates()->file("ca.pem");
  options_.server = url("encrypted");
  EXPECT_THAT(refusal(), AllOf(StartsWith("tls: "), HasSubstr("does not match host name")));
}

TEST_F(SinkPostgresTlsTest, ClientShowsItsCertificate) {
  options_.server = url_at("probe", "localhost");
  options_.tls = Tls::required;
  EXPECT_THAT(refusal(), AllOf(StartsWith("server: "), HasSubstr("valid client certificate")));
  options_.tls_cert = certificates()->file("client.pem");
  options_.tls_key = certificates()->file("client.key");
  EXPECT_EQ(refusal(), "accepted");
  std::filesystem::permissions(options_.tls_key, std::filesystem::perms::others_read,
                               std::filesystem::perm_options::add);
  EXPECT_THAT(refusal(), AllOf(StartsWith("tls: "), HasSubstr("private key file")));
  std::filesystem::permissions(options_.tls_key, std::filesystem::perms::others_read,
                               std::filesystem::perm_options::remove);
}

TEST_F(SinkPostgresTlsTest, EncryptionHoldsAfterAReconnect) {
  options_.tls = Tls::verify;
  options_.tls_ca = certificates()->file("ca.pem");
  SinkPostgres sink(options_);
  sink.open(context_);
  services()->restart("postgres");
  Batch<Verdict> batch = batch_of({verdict(1, "a")});
  EXPECT_THROW(sink.write(batch), Transient);
  give(sink, batch);  // this user may not come without
  EXPECT_EQ(query("SELECT count(*) FROM sessions"), "1;");
}

TEST_F(SinkPostgresTlsTest, FileThatIsMissingIsNamed) {
  options_.tls = Tls::verify;
  options_.tls_ca = certificates()->file("nothing.pem");
  EXPECT_THAT(refusal(), AllOf(StartsWith("tls_ca: cannot read"), HasSubstr("nothing.pem")));
}

using SinkPostgresNoTlsTest = SinkPostgresTest;

TEST_F(SinkPostgresNoTlsTest, ServerWithoutTlsIsRefused) {
  options_.tls = Tls::required;
  EXPECT_THAT(refusal(), AllOf(StartsWith("tls: "), HasSubstr("server does not support SSL")));
}

}  // namespace
}  // namespace millrace
