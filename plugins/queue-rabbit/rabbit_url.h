#pragma once

#include <cstdint>
#include <string>

namespace millrace {

/// amqp://user:password@host:port/vhost, as the broker's URI specification has it
/// (https://www.rabbitmq.com/uri-spec.html): parts are percent-decoded, no path means the vhost
/// "/".
struct RabbitUrl {
  bool tls = false;
  std::string user = "guest";
  std::string password = "guest";
  std::string host;
  std::uint16_t port = 5672;
  std::string vhost = "/";
};

/// Throws std::runtime_error, saying what is wrong; the message never holds the password.
[[nodiscard]] RabbitUrl parse_rabbit_url(const std::string& text);

}  // namespace millrace
