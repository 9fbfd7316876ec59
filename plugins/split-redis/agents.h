#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

#include "millrace/time.h"

namespace millrace {

/// What a receiver remembers of an agent.
struct AgentClock {
  std::uint16_t number = 0;                ///< for the fragment cache
  Timestamp time = kNoTime;                ///< the latest time of its packets so far
  bool read = false;                       ///< Redis was asked
  std::array<std::uint64_t, 64> chunks{};  ///< those seen lately: Redis was asked at their begin
  std::size_t next = 0;
  std::uint64_t batch = 0;  ///< the last one it was in, and its place there
  std::uint32_t place = 0;

  [[nodiscard]] bool knows(std::uint64_t chunk) const {
    for (const std::uint64_t known : chunks) {
      if (known == chunk) return true;
    }
    return false;
  }
  void learn(std::uint64_t chunk) {
    chunks[next] = chunk;
    next = (next + 1) % chunks.size();
  }
};

/// The clocks of all agents. When there are too many all are forgotten, and read from Redis again.
class AgentClocks {
 public:
  /// Valid until `trim`.
  AgentClock& of(std::string_view name) {
    const auto [place, fresh] = clocks_.try_emplace(std::string(name));
    if (fresh) place->second.number = next_++;
    return place->second;
  }
  void trim() {
    constexpr std::size_t kMost = 16384;
    if (clocks_.size() > kMost) clocks_.clear();
  }

 private:
  std::unordered_map<std::string, AgentClock> clocks_;
  std::uint16_t next_ = 0;
};

}  // namespace millrace
