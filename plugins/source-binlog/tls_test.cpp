#include "binlog_fixture.h"
#include "support/certificates.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class SourceBinlogTlsTest : public BinlogTest {
 protected:
  static void SetUpTestSuite() {
    certificates() = std::make_unique<testing::Certificates>();
    if (!certificates()->made()) return;
    services() = std::make_unique<testing::Services>(testing::Services::Names{"mariadb"},
                                                     certificates()->database_options("mariadb"));
  }
  static void TearDownTestSuite() {
    services().reset();
    certificates().reset();
  }
  static std::unique_ptr<testing::Certificates>& certificates() {
    static std::unique_ptr<testing::Certificates> made;
    return made;
  }
  void SetUp() override {
    if (!certificates()->made()) GTEST_SKIP() << "SKIPPED: openssl made no certificates";
    BinlogTest::SetUp();
    if (IsSkipped()) return;
    execute({"CREATE OR REPLACE USER encrypted@'%' REQUIRE SSL",
             "GRANT REPLICATION SLAVE, SELECT ON *.* TO encrypted@'%'"});
    options_.server = "mysql://encrypted@localhost:" + std::to_string(services()->port("mariadb")) +
                      "/" + database_;
    make_table();
  }
};

TEST_F(SourceBinlogTlsTest, TheLogIsReadEncrypted) {
  options_.tls = Tls::required;
  {
    RunningSource source(options_, out_);
    insert(1, 1);
    ASSERT_TRUE(eventually([&] { return out_.count() == 1; }));
  }
  options_.tls = Tls::verify;
  options_.tls_ca = certificates()->file("ca.pem");
  RunningSource source(options_, out_);
  insert(2, 2);
  ASSERT_TRUE(eventually([&] { return out_.count() == 2; }));
}

TEST_F(SourceBinlogTlsTest, WhatDoesNotFitIsSaid) {
  EXPECT_THAT(refusal(), AllOf(StartsWith("server: "), HasSubstr("Access denied")));
  options_.tls = Tls::verify;
  options_.tls_ca = certificates()->file("other.pem");
  EXPECT_THAT(refusal(), StartsWith("tls: mysql://encrypted@localhost"));
  options_.tls_ca = "/nowhere.pem";
  EXPECT_THAT(refusal(), StartsWith("tls_ca: cannot read '/nowhere.pem': No such file"));
}

TEST_F(SourceBinlogTlsTest, AUnixSocketIsAnAddressToo) {
  options_.server =
      "mysql://root@/" + database_ + "?socket=" + (services()->folder() / "mariadb/sock").string();
  RunningSource source(options_, out_);
  insert(1, 1);
  EXPECT_TRUE(eventually([&] { return out_.count() == 1; }));
}

}  // namespace
}  // namespace millrace
