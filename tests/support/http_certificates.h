#pragma once

/// Certificates for tests, made with openssl.

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include <boost/asio/ssl/context.hpp>

namespace millrace {

/// Keys and certificates for 127.0.0.1 in a folder: NAME.key and NAME.pem.
class TestCertificates {
 public:
  explicit TestCertificates(std::filesystem::path folder) : folder_(std::move(folder)) {}

  /// Whether there is an openssl to make them with.
  [[nodiscard]] static bool possible() { return shell("command -v openssl"); }
  [[nodiscard]] std::string path(const std::string& name) const { return folder_ / name; }

  /// One that `authority` signs; an authority if that is empty.
  [[nodiscard]] bool make(const std::string& name, const std::string& authority) const {
    const std::string key = " -subj /CN=" + name + " -keyout " + path(name + ".key");
    if (authority.empty()) {
      return shell(
          "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
          "-addext "
          "subjectAltName=IP:127.0.0.1" +
          key + " -out " + path(name + ".pem"));
    }
    std::ofstream(path("extension")) << "subjectAltName=IP:127.0.0.1\n";
    return shell("openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes" + key +
                 " -out " + path("request")) &&
           shell("openssl x509 -req -days 2 -in " + path("request") + " -CA " +
                 path(authority + ".pem") + " -CAkey " + path(authority + ".key") +
                 " -CAcreateserial -extfile " + path("extension") + " -out " + path(name + ".pem"));
  }

  /// A server with the certificate `name` that only lets in whom `authority` has signed.
  void use(boost::asio::ssl::context& tls, const std::string& name,
           const std::string& authority) const {
    namespace ssl = boost::asio::ssl;
    tls.use_certificate_chain_file(path(name + ".pem"));
    tls.use_private_key_file(path(name + ".key"), ssl::context::pem);
    tls.load_verify_file(path(authority + ".pem"));
    tls.set_verify_mode(ssl::verify_peer | ssl::verify_fail_if_no_peer_cert);
  }

 private:
  [[nodiscard]] static bool shell(const std::string& command) {
    return std::system((command + " > /dev/null 2>&1").c_str()) == 0;
  }

  std::filesystem::path folder_;
};

}  // namespace millrace
