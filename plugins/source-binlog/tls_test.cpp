#include "binlog_fixture.h"
#include "support/tls_server_test.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class SourceBinlogTlsTest : public testing::TlsServerTest<BinlogTest> {
 protected:
  void SetUp() override {
    TlsServerTest::SetUp();
    if (IsSkipped()) return;
    execute({"CREATE OR REPLACE USER encrypted@'%' REQUIRE SSL",
             "GRANT REPLICATION SLAVE, SELECT ON *.* TO encrypted@'%'"});
    options_.server = "mysql://encrypted@localhost:" + std::to_string(services()->port(server())) +
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
