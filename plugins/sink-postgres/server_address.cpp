#include "server_address.h"

#include <array>
#include <charconv>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <libpq-fe.h>

namespace millrace {

namespace {

constexpr std::string_view kForm =
    "expected postgresql://user:password@host:port/database or "
    "postgresql://user@/database?host=/folder/of/socket";

/// Parameters of libpq that are set by options, and the option.
constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kOfOptions{{
    {"sslmode", "tls"},
    {"requiressl", "tls"},
    {"sslrootcert", "tls_ca"},
    {"sslcert", "tls_cert"},
    {"sslkey", "tls_key"},
    {"connect_timeout", "connect_timeout"},
    {"client_encoding", ""},
}};

/// What libpq has against the address, without the part of it that it quotes: that may be the
/// password.
std::string complaint(std::string_view message) {
  return std::string(message.substr(0, message.find(": \"")));
}

void check_ports(std::string_view ports) {
  while (!ports.empty()) {
    const std::string_view port = ports.substr(0, ports.find(','));
    ports.remove_prefix(std::min(ports.size(), port.size() + 1));
    unsigned number = 0;
    const auto [last, error] = std::from_chars(port.data(), port.data() + port.size(), number);
    if (error != std::errc() || last != port.data() + port.size() || number < 1 || number > 65535) {
      throw std::invalid_argument("the port is no number from 1 to 65535");
    }
  }
}

std::string value_of(const ServerAddress& address, const std::string& name) {
  const auto found = address.find(name);
  return found == address.end() ? std::string() : found->second;
}

}  // namespace

ServerAddress parse_server_address(const std::string& url) {
  if (!url.starts_with("postgresql://") && !url.starts_with("postgres://")) {
    throw std::invalid_argument(std::string(kForm));
  }
  char* message = nullptr;
  const std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> options(
      PQconninfoParse(url.c_str(), &message), &PQconninfoFree);
  if (!options) {
    const std::unique_ptr<char, decltype(&PQfreemem)> owner(message, &PQfreemem);
    throw std::invalid_argument(
        fmt::format("{}; {}, with what would be mistaken for a part of the form as %XX",
                    complaint(message == nullptr ? "it cannot be read" : message), kForm));
  }
  ServerAddress address;
  for (const PQconninfoOption* option = options.get(); option->keyword != nullptr; ++option) {
    if (option->val != nullptr && *option->val != '\0') address[option->keyword] = option->val;
  }
  const std::string database = value_of(address, "dbname");
  // A password with a / in it has ended there; its first part must not be shown as a host.
  if (!address.contains("user") && database.find('@') != std::string::npos) {
    throw std::invalid_argument("a / in user or password is written %2F");
  }
  for (const auto& [parameter, option] : kOfOptions) {
    if (!address.contains(std::string(parameter))) continue;
    throw std::invalid_argument(
        option.empty() ? fmt::format("'{}' may not stand in the address", parameter)
                       : fmt::format("'{}' may not stand in the address; there is the option '{}'",
                                     parameter, option));
  }
  check_ports(value_of(address, "port"));
  for (const auto& [parameter, what] :
       {std::pair{"dbname", "database"}, std::pair{"user", "user"}, std::pair{"host", "host"}}) {
    if (!address.contains(parameter)) {
      throw std::invalid_argument(fmt::format("the {} is missing; {}", what, kForm));
    }
  }
  return address;
}

std::string to_string(const ServerAddress& address) {
  const std::string user = value_of(address, "user");
  const std::string host = value_of(address, "host");
  const std::string database = value_of(address, "dbname");
  if (is_socket(address)) return fmt::format("postgresql://{}@/{}?host={}", user, database, host);
  const std::string port = value_of(address, "port");
  return fmt::format("postgresql://{}@{}{}{}/{}", user, host, port.empty() ? "" : ":", port,
                     database);
}

bool is_socket(const ServerAddress& address) { return value_of(address, "host").starts_with('/'); }

}  // namespace millrace
