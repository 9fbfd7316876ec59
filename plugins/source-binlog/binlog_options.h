#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "millrace/time.h"

#include "connection.h"

namespace millrace {

using namespace std::chrono_literals;

enum class StartAt : std::uint8_t { now, oldest };
enum class OnGap : std::uint8_t { stop, start };
enum class OnBad : std::uint8_t { skip, stop };

struct BinlogOptions {
  std::string server{};
  std::string password{};
  std::vector<std::string> tables{};
  std::string state{};
  StartAt start = StartAt::now;
  OnGap on_gap = OnGap::stop;
  OnBad on_bad = OnBad::stop;
  std::uint32_t server_id = 0;
  std::uint32_t batch = 256;
  std::uint32_t window = 64;
  Duration retry_pause = 1s;
  Duration commit_every = 500ms;
  Duration heartbeat = 5s;
  Duration connect_timeout = 5s;
  Duration wait = 30s;
  Duration finish = 10s;
  Tls tls = Tls::off;
  std::string tls_ca{};
  std::string tls_cert{};
  std::string tls_key{};
};

}  // namespace millrace
