#pragma once

#include <map>
#include <string>

namespace millrace {

/// Where a server is and as whom to speak to it: what libpq calls connection parameters, by name,
/// with `user`, `host` and `dbname` always among them.
using ServerAddress = std::map<std::string, std::string>;

/// Reads `postgresql://user:password@host:port/database` or
/// `postgresql://user@/database?host=/folder/of/socket`, as libpq does; behind `?` may stand other
/// parameters of libpq, except those that this stage has options for. Throws std::invalid_argument,
/// which never tells the password.
[[nodiscard]] ServerAddress parse_server_address(const std::string& url);

/// Without the password, for people.
[[nodiscard]] std::string to_string(const ServerAddress& address);

/// The host is a folder with a unix socket.
[[nodiscard]] bool is_socket(const ServerAddress& address);

}  // namespace millrace
