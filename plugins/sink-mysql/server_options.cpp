#include "server_options.h"

#include <cerrno>
#include <chrono>
#include <stdexcept>
#include <system_error>
#include <thread>

#include <fmt/format.h>
#include <unistd.h>

#include "millrace/error.h"

namespace millrace {

void check_server_options(const ServerOptions& options, Findings& findings) {
  // A secret that is not known here is left as it stands in the file.
  if (options.server.find("${") == std::string::npos) {
    try {
      const ServerAddress address = parse_server_address(options.server);
      if (!address.password.empty() && !options.password.empty()) {
        findings.add("password", "there is a password in 'server' already");
      }
      if (!address.socket.empty() && options.tls != Tls::off) {
        findings.add("tls", "a unix socket needs no TLS");
      }
    } catch (const std::invalid_argument& error) {
      findings.add("server", error.what());
    }
  }
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

ConnectionOptions connection_options(const ServerOptions& options) {
  ConnectionOptions connection;
  try {
    connection.address = parse_server_address(options.server);
  } catch (const std::invalid_argument& error) {
    throw ConfigError("server", error.what());
  }
  if (!options.password.empty()) connection.address.password = options.password;
  const auto readable = [](const char* option, const std::string& path) {
    if (!path.empty() && ::access(path.c_str(), R_OK) != 0) {
      const std::error_code error(errno, std::system_category());
      throw ConfigError(option, fmt::format("cannot read '{}': {}", path, error.message()));
    }
    return path;
  };
  connection.tls = options.tls;
  connection.tls_ca = readable("tls_ca", options.tls_ca);
  connection.tls_cert = readable("tls_cert", options.tls_cert);
  connection.tls_key = readable("tls_key", options.tls_key);
  return connection;
}

void connect_first(Context& context, const ServerOptions& options, Duration wait,
                   const std::function<void()>& connect) {
  constexpr std::chrono::milliseconds kPause(250);
  constexpr int kTlsError = 2026;
  const auto until = std::chrono::steady_clock::now() + wait;
  for (bool told = false;; told = true) {
    try {
      return connect();
    } catch (const ServerError& error) {
      if (error.code() == kTlsError) throw ConfigError("tls", error.what());
      if (!error.passes()) {
        constexpr int kWrongPassword = 1045;
        const bool password = error.code() == kWrongPassword && !options.password.empty();
        throw ConfigError(password ? "password" : "server", error.what());
      }
      if (std::chrono::steady_clock::now() + kPause > until) throw Transient(error.what());
      if (!told) context.warning(fmt::format("{}; waiting for it", error.what()));
    }
    std::this_thread::sleep_for(kPause);
  }
}

}  // namespace millrace
