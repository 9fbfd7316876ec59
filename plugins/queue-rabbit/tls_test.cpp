#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "millrace/error.h"

#include "rabbit_fixture.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

std::uint16_t free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ::bind(fd, reinterpret_cast<sockaddr*>(&address), size);
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  ::close(fd);
  return ntohs(address.sin_port);
}

/// A broker with a TLS listener, and certificates made for it.
class RabbitTlsTest : public RabbitTest {
 protected:
  static void SetUpTestSuite() {
    std::string pattern = fs::temp_directory_path() / "rabbit-tls-XXXXXX";
    folder = ::mkdtemp(pattern.data());
    const std::string in = "cd " + folder.string() + " && ";
    const std::string quiet = " > openssl.log 2>&1";
    made = std::system((in +
                        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca "
                        "-keyout ca.key -out ca.pem" +
                        quiet)
                           .c_str()) == 0;
    std::ofstream(folder / "names") << "subjectAltName=IP:127.0.0.1,DNS:localhost\n";
    made =
        made &&
        std::system((in +
                     "openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key "
                     "-out server.csr" +
                     quiet +
                     " && openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key "
                     "-CAcreateserial -days 2 -extfile names -out server.pem" +
                     quiet)
                        .c_str()) == 0;
    if (!made) return;
    port = free_port();
    const auto file = [](const char* name) { return (folder / name).string(); };
    services = std::make_unique<testing::Services>(
        testing::Services::Names{"rabbitmq"},
        testing::Services::Names{
            "--option", "rabbitmq=listeners.ssl.default = 127.0.0.1:" + std::to_string(port),
            "--option", "rabbitmq=ssl_options.cacertfile = " + file("ca.pem"), "--option",
            "rabbitmq=ssl_options.certfile = " + file("server.pem"), "--option",
            "rabbitmq=ssl_options.keyfile = " + file("server.key"), "--option",
            "rabbitmq=ssl_options.verify = verify_none"});
  }
  static void TearDownTestSuite() {
    services.reset();
    fs::remove_all(folder);
  }
  void SetUp() override {
    if (!made) GTEST_SKIP() << "openssl could not make certificates: is it installed?";
    RabbitTest::SetUp();
    options_.server = "amqps://guest:guest@localhost:" + std::to_string(port);
    options_.ca = folder / "ca.pem";
    options_.wait = 0s;
  }

  static inline fs::path folder;
  static inline std::uint16_t port = 0;
  static inline bool made = false;
};

TEST_F(RabbitTlsTest, TicketsGoThroughAVerifiedConnection) {
  options_.wait = 60s;
  RabbitIn in(options_);
  in.open(context_);
  put(in, tickets(0, 1000));
  in.flush();
  Analyser out(options_);
  EXPECT_TRUE(within(20s, [&] { return out.taker.different() == 1000; }));
}

TEST_F(RabbitTlsTest, ABrokerWithAnotherCertificateIsRefused) {
  options_.ca.clear();
  RabbitIn in(options_);
  EXPECT_THROW(in.open(context_), ConfigError);
  options_.verify = false;
  RabbitIn unverified(options_);
  EXPECT_NO_THROW(unverified.open(context_));
}

}  // namespace
}  // namespace millrace
