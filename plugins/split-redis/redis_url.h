#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "millrace/time.h"

namespace millrace {

/// Where a Redis server is and how to log in.
struct RedisAddress {
  std::string host = "127.0.0.1";  ///< or, with `unix_path`, nothing
  std::uint16_t port = 6379;
  std::string unix_path;
  std::string user;  ///< empty: Redis's default user
  std::string password;
  std::uint32_t database = 0;
  bool tls = false;
  std::string ca_file;  ///< with `tls`: the certificates to trust; empty: those of the system

  /// For messages: without user and password.
  [[nodiscard]] std::string name() const;
};

/// Reads `redis://[[user]:password@]host[:port][/database]`, the same with `rediss`, or
/// `unix://[[user]:password@]/path[?db=database]`. User and password are percent-decoded. Throws
/// ConfigError for the option "server"; its message never holds the password.
[[nodiscard]] RedisAddress parse_redis_url(std::string_view url, std::string_view ca_file = {});

}  // namespace millrace
