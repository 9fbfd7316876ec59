#include "server_options.h"

#include <chrono>
#include <stdexcept>
#include <thread>

#include <fmt/format.h>

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
      if (!address.socket.empty() && options.tls.tls != Tls::off) {
        findings.add("tls", "a unix socket needs no TLS");
      }
    } catch (const std::invalid_argument& error) {
      findings.add("server", error.what());
    }
  }
  check_tls_options(options.tls, findings);
}

ConnectionOptions connection_options(const ServerOptions& options) {
  ConnectionOptions connection;
  try {
    connection.address = parse_server_address(options.server);
  } catch (const std::invalid_argument& error) {
    throw ConfigError("server", error.what());
  }
  if (!options.password.empty()) connection.address.password = options.password;
  expect_readable(options.tls);
  connection.tls = options.tls.tls;
  connection.tls_ca = options.tls.tls_ca;
  connection.tls_cert = options.tls.tls_cert;
  connection.tls_key = options.tls.tls_key;
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
