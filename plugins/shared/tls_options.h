#pragma once

#include <cstdint>
#include <string>

namespace millrace {

class Findings;

/// The option "tls" of stages that speak to a database: off, encrypted whoever the server is, or to
/// be who it says it is.
enum class Tls : std::uint8_t { off, required, verify };

/// What such a stage's options say of TLS; the files are PEM.
struct TlsOptions {
  Tls tls;
  const std::string& tls_ca;
  const std::string& tls_cert;
  const std::string& tls_key;
};

/// What can be said of them without the server.
void check_tls_options(const TlsOptions& options, Findings& findings);

/// Throws ConfigError for the option whose file cannot be read.
void expect_readable(const TlsOptions& options);

}  // namespace millrace
