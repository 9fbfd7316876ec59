#include "tls_options.h"

#include <cerrno>
#include <system_error>
#include <utility>

#include <fmt/format.h>
#include <unistd.h>

#include "millrace/error.h"
#include "millrace/plugin.h"

namespace millrace {

void check_tls_options(const TlsOptions& options, Findings& findings) {
  if (options.tls_cert.empty() != options.tls_key.empty()) {
    findings.add(options.tls_cert.empty() ? "tls_cert" : "tls_key",
                 "certificate and key go together; one is missing");
  }
  if (options.tls == Tls::off && (!options.tls_ca.empty() || !options.tls_cert.empty())) {
    findings.add("tls", "is off, but there are other options for TLS");
  }
  if (options.tls == Tls::verify && options.tls_ca.empty()) {
    findings.add("tls_ca", "is needed for tls = \"verify\"");
  }
  if (options.tls == Tls::required && !options.tls_ca.empty()) {
    findings.add("tls_ca", "is not looked at with tls = \"required\"; expected \"verify\"");
  }
}

void expect_readable(const TlsOptions& options) {
  for (const auto& [option, path] :
       {std::pair<const char*, const std::string&>{"tls_ca", options.tls_ca},
        {"tls_cert", options.tls_cert},
        {"tls_key", options.tls_key}}) {
    if (path.empty() || ::access(path.c_str(), R_OK) == 0) continue;
    const std::error_code error(errno, std::system_category());
    throw ConfigError(option, fmt::format("cannot read '{}': {}", path, error.message()));
  }
}

}  // namespace millrace
