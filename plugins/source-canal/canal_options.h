#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "millrace/time.h"

#include "change_message.h"

namespace millrace {

using namespace std::chrono_literals;

enum class StartAt : std::uint8_t { earliest, latest };
enum class OnBad : std::uint8_t { skip, stop };

struct CanalOptions {
  std::string brokers = "127.0.0.1:9092";
  std::vector<std::string> topics;
  std::string group = "millrace";
  MessageFormat format = MessageFormat::canal;
  std::vector<std::string> tables;
  StartAt start = StartAt::earliest;
  OnBad on_bad = OnBad::skip;
  std::uint32_t batch = 256;
  std::uint32_t window = 64;
  Duration retry_pause = 1s;
  Duration commit_every = 500ms;
  Duration wait = 30s;
  Duration finish = 10s;
  std::map<std::string, std::string> kafka;
};

}  // namespace millrace
