#include "endpoint.h"

#include <fmt/format.h>

#include "millrace/error.h"

namespace millrace {

namespace asio = boost::asio;
using asio::ip::tcp;

/// "HOST:PORT", the host of IPv6 in brackets.
tcp::endpoint listen_endpoint(asio::io_context& io, const std::string& listen) {
  const auto wrong = [&](const std::string& why) {
    return ConfigError("listen", fmt::format("'{}': {}", listen, why));
  };
  const std::size_t colon = listen.rfind(':');
  if (colon == std::string::npos) throw wrong("expected HOST:PORT");
  std::string host = listen.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string::npos) {
    throw wrong("an IPv6 address is written in brackets: [::]:8080");
  }
  if (host.empty()) throw wrong("expected HOST:PORT, such as 127.0.0.1:8080");
  if (host == "*") throw wrong("every address of this machine is written 0.0.0.0 or [::]");
  const std::string port = listen.substr(colon + 1);
  if (port.empty() || port.find_first_not_of("0123456789") != std::string::npos ||
      port.size() > 5 || std::stoul(port) > 65535) {
    throw wrong("the port must be 0 to 65535");
  }
  tcp::resolver resolver(io);
  boost::system::error_code error;
  const auto found =
      resolver.resolve(host, port, tcp::resolver::passive | tcp::resolver::numeric_service, error);
  if (error || found.empty()) throw wrong(error.message());
  return found.begin()->endpoint();
}

bool is_local(const asio::ip::address& address) {
  if (address.is_v6() && address.to_v6().is_v4_mapped()) {
    return asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6()).is_loopback();
  }
  return address.is_loopback();
}

std::string exposure(const HttpOptions& options, const tcp::endpoint& endpoint) {
  const bool certificates =
      !options.client_ca.empty() && options.client_certificate == ClientCertificate::required;
  if (options.insecure || certificates || !options.tokens.empty() || is_local(endpoint.address())) {
    return {};
  }
  return fmt::format(
      "'{}' can be reached from other machines, and everybody there could upload: set 'tokens', or "
      "'certificate', 'key' and 'client_ca'{}; or 'insecure = true' if strangers may; or listen on "
      "127.0.0.1",
      options.listen, options.client_ca.empty() ? "" : " (with client_certificate = \"required\")");
}

}  // namespace millrace
