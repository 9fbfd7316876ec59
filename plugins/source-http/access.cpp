#include "access.h"

#include <cctype>
#include <fstream>
#include <string>
#include <system_error>

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include "millrace/error.h"

namespace millrace {

namespace ssl = boost::asio::ssl;

Tokens Tokens::read(const std::filesystem::path& file) {
  std::ifstream in(file);
  if (!in) throw ConfigError("tokens", fmt::format("cannot read '{}'", file.string()));
  Tokens tokens;
  std::string line;
  for (std::size_t number = 1; std::getline(in, line); ++number) {
    while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back())) != 0) {
      line.pop_back();
    }
    if (line.empty() || line.front() == '#') continue;
    for (const char c : line) {
      if (c <= ' ' || c > '~') {
        throw ConfigError("tokens",
                          fmt::format("{}:{}: a token holds a character other than printable ASCII",
                                      file.string(), number));
      }
    }
    tokens.digests_.push_back(digest(line));
  }
  if (tokens.digests_.empty()) {
    throw ConfigError("tokens", fmt::format("'{}' holds no token", file.string()));
  }
  return tokens;
}

Tokens::Digest Tokens::digest(std::string_view token) {
  Digest digest{};
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), digest.data());
  return digest;
}

bool Tokens::admits(std::string_view authorization) const {
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() <= kScheme.size()) return false;
  for (std::size_t i = 0; i < kScheme.size(); ++i) {
    if (std::tolower(static_cast<unsigned char>(authorization[i])) != kScheme[i]) return false;
  }
  authorization.remove_prefix(kScheme.size());
  while (authorization.starts_with(' ')) authorization.remove_prefix(1);
  // Digests of equal length, all of them compared to the end: time tells nothing of a token.
  const Digest given = digest(authorization);
  bool found = false;
  for (const Digest& known : digests_) {
    found |= CRYPTO_memcmp(known.data(), given.data(), given.size()) == 0;
  }
  return found;
}

std::unique_ptr<ssl::context> make_tls(const HttpOptions& options) {
  if (options.certificate.empty()) return nullptr;
  auto context = std::make_unique<ssl::context>(ssl::context::tls_server);
  context->set_options(ssl::context::default_workarounds | ssl::context::no_tlsv1 |
                       ssl::context::no_tlsv1_1);
  const auto load = [](const char* option, const std::string& file, const auto& use) {
    try {
      use();
    } catch (const std::exception& error) {
      throw ConfigError(option, fmt::format("cannot use '{}': {}", file, error.what()));
    }
  };
  load("certificate", options.certificate,
       [&] { context->use_certificate_chain_file(options.certificate); });
  load("key", options.key, [&] { context->use_private_key_file(options.key, ssl::context::pem); });
  if (SSL_CTX_check_private_key(context->native_handle()) != 1) {
    throw ConfigError("key", fmt::format("'{}' is not the key of the certificate '{}'", options.key,
                                         options.certificate));
  }
  if (!options.client_ca.empty()) {
    load("client_ca", options.client_ca, [&] { context->load_verify_file(options.client_ca); });
    ssl::verify_mode mode = ssl::verify_peer;
    if (options.client_certificate == ClientCertificate::required) {
      mode |= ssl::verify_fail_if_no_peer_cert;
    }
    context->set_verify_mode(mode);
  }
  // Sessions are not resumed from a cache: it would grow with the clients.
  SSL_CTX_set_session_cache_mode(context->native_handle(), SSL_SESS_CACHE_OFF);
  // Idle connections should not hold buffers.
  SSL_CTX_set_mode(context->native_handle(), SSL_MODE_RELEASE_BUFFERS);
  return context;
}

std::string random_id() {
  std::array<unsigned char, 16> bytes{};
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) {
    throw std::system_error(std::make_error_code(std::errc::io_error), "no random bytes");
  }
  std::string id;
  for (const unsigned char byte : bytes) id += fmt::format("{:02x}", byte);
  return id;
}

}  // namespace millrace
