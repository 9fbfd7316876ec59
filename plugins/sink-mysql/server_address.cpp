#include "server_address.h"

#include <charconv>
#include <optional>
#include <stdexcept>

#include <fmt/format.h>

#include "host_fault.h"

namespace millrace {

namespace {

constexpr std::string_view kForm =
    "expected mysql://user:password@host:port/database or "
    "mysql://user@/database?socket=/path/of/socket";

std::string decoded(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      plain += text[i];
      continue;
    }
    unsigned value = 0;
    const char* const first = text.data() + i + 1;
    if (i + 2 >= text.size() || std::from_chars(first, first + 2, value, 16).ptr != first + 2) {
      throw std::invalid_argument("there is a % that no two hexadecimal digits follow; write %25");
    }
    plain += static_cast<char>(value);
    i += 2;
  }
  return plain;
}

/// Takes what is before the first `mark` out of `text`, the mark included.
std::optional<std::string_view> cut(std::string_view& text, char mark) {
  const std::size_t at = text.find(mark);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view before = text.substr(0, at);
  text.remove_prefix(at + 1);
  return before;
}

void parse_host(std::string_view text, ServerAddress& address) {
  // Before the port, which the first of several seems to end with.
  if (text.find(',') != std::string_view::npos) throw std::invalid_argument(host_fault(text));
  std::size_t end = text.find(':');
  if (text.starts_with('[')) {
    const std::size_t bracket = text.find(']');
    if (bracket == std::string_view::npos) throw std::invalid_argument("there is a [ without ]");
    address.host = text.substr(1, bracket - 1);
    end = bracket + 1 < text.size() ? bracket + 1 : std::string_view::npos;
  } else {
    address.host = text.substr(0, end);
  }
  if (!address.host.empty() && !host_fault(address.host).empty()) {
    throw std::invalid_argument(host_fault(address.host));
  }
  if (end == std::string_view::npos) return;
  const std::string_view port = text.substr(end + 1);
  const auto [last, error] =
      std::from_chars(port.data(), port.data() + port.size(), address.port, 10);
  if (text[end] != ':' || error != std::errc() || last != port.data() + port.size() ||
      address.port == 0) {
    throw std::invalid_argument("the port is no number from 1 to 65535");
  }
}

}  // namespace

ServerAddress parse_server_address(std::string_view url) {
  ServerAddress address;
  constexpr std::string_view kScheme = "mysql://";
  if (!url.starts_with(kScheme)) throw std::invalid_argument(std::string(kForm));
  url.remove_prefix(kScheme.size());

  auto authority = cut(url, '/');
  if (!authority) throw std::invalid_argument(fmt::format("the database is missing; {}", kForm));
  // A password with a / in it would end here; its first part must not be shown as a host.
  if (const std::size_t at = authority->rfind('@'); at != std::string_view::npos) {
    std::string_view user = authority->substr(0, at);
    authority->remove_prefix(at + 1);
    if (const auto name = cut(user, ':')) {
      address.user = decoded(*name);
      address.password = decoded(user);
    } else {
      address.user = decoded(user);
    }
  } else if (url.find('@') != std::string_view::npos) {
    throw std::invalid_argument("a / in user or password is written %2F");
  }
  parse_host(*authority, address);

  std::string_view database = url;
  if (const auto path = cut(url, '?')) {
    database = *path;
    constexpr std::string_view kSocket = "socket=";
    if (!url.starts_with(kSocket) || url.find('&') != std::string_view::npos) {
      throw std::invalid_argument("the only thing that may stand behind ? is socket=/path");
    }
    address.socket = decoded(url.substr(kSocket.size()));
    if (!address.socket.starts_with('/')) {
      throw std::invalid_argument("the socket's path does not begin with /");
    }
  }
  address.database = decoded(database);
  if (address.database.empty()) {
    throw std::invalid_argument(fmt::format("the database is missing; {}", kForm));
  }
  if (address.user.empty()) {
    throw std::invalid_argument(fmt::format("the user is missing; {}", kForm));
  }
  if (address.host.empty() && address.socket.empty()) {
    throw std::invalid_argument(fmt::format("the host is missing; {}", kForm));
  }
  return address;
}

std::string to_string(const ServerAddress& address) {
  if (!address.socket.empty()) {
    return fmt::format("mysql://{}@/{}?socket={}", address.user, address.database, address.socket);
  }
  const bool v6 = address.host.find(':') != std::string::npos;
  return fmt::format("mysql://{}@{}{}{}:{}/{}", address.user, v6 ? "[" : "", address.host,
                     v6 ? "]" : "", address.port, address.database);
}

}  // namespace millrace
