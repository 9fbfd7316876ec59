#pragma once

#include <functional>
#include <string>

#include "millrace/context.h"
#include "millrace/plugin.h"
#include "millrace/time.h"

#include "connection.h"

namespace millrace {

/// What the options of a stage say of its server; all stages that speak to one have these.
struct ServerOptions {
  const std::string& server;
  const std::string& password;
  TlsOptions tls;
};

template <class Options>
[[nodiscard]] ServerOptions server_options(const Options& options) {
  return {options.server,
          options.password,
          {options.tls, options.tls_ca, options.tls_cert, options.tls_key}};
}

/// What can be said of them without the server.
void check_server_options(const ServerOptions& options, Findings& findings);

/// Address and TLS; the timeouts are the caller's to set. Throws ConfigError.
[[nodiscard]] ConnectionOptions connection_options(const ServerOptions& options);

/// Calls `connect` until it returns or `wait` is over: at the start nobody else tries again, and
/// servers are often started together with this. Throws ConfigError if the server is there and says
/// no, Transient if it is not.
void connect_first(Context& context, const ServerOptions& options, Duration wait,
                   const std::function<void()>& connect);

}  // namespace millrace
