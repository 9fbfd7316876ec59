#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace millrace {

/// Where a server is and as whom to speak to it.
struct ServerAddress {
  std::string user;
  std::string password;
  std::string host;
  std::uint16_t port = 3306;
  std::string socket;  ///< path of a unix socket; then host and port are not used
  std::string database;
};

/// Reads `mysql://user:password@host:port/database`, or `mysql://user@/database?socket=/path`.
/// User, password, database and socket may hold %XX. Throws std::invalid_argument, which never
/// tells the password.
[[nodiscard]] ServerAddress parse_server_address(std::string_view url);

/// The same without the password, for people.
[[nodiscard]] std::string to_string(const ServerAddress& address);

}  // namespace millrace
