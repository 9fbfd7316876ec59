#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "millrace/option.h"

namespace millrace {

enum class DelayBy : std::uint8_t { hold, ttl, x_delayed_message };

struct RabbitOptions {
  std::string server = "amqp://guest:guest@127.0.0.1:5672/";
  std::string name = "millrace";
  Duration delay = std::chrono::seconds(10);
  DelayBy delay_by = DelayBy::hold;
  std::uint32_t bundle = 64;
  std::uint32_t window = 512;
  std::uint32_t prefetch = 32;
  std::uint32_t max_attempts = 20;
  Duration retry_pause = std::chrono::seconds(2);
  Duration heartbeat = std::chrono::seconds(10);
  Duration timeout = std::chrono::seconds(10);
  Duration check_queues = std::chrono::minutes(1);
  Duration wait = std::chrono::seconds(30);
  Duration finish = std::chrono::seconds(10);
  std::string ca{};
  std::string certificate{};
  std::string key{};
  bool verify = true;
};

}  // namespace millrace
