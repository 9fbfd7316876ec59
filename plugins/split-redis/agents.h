#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

#include "millrace/packet_clock.h"

namespace millrace {

/// What a receiver remembers of an agent.
struct KnownAgent {
  std::uint16_t number = 0;  ///< for the fragment cache
  PacketClock clock;         ///< to tell of jumps; nothing else goes by it
  std::uint64_t jumps = 0;   ///< of the clock, told of
  struct Chunk {
    std::uint64_t hash = 0;
    std::int64_t last = -1;  ///< number of the last packet that was sent to Redis
  };
  std::array<Chunk, 64> chunks{};  ///< those seen lately
  std::size_t next = 0;
  std::uint64_t batch = 0;  ///< the last one it was in, and its place there
  std::uint32_t place = 0;

  [[nodiscard]] Chunk* find(std::uint64_t chunk) {
    for (Chunk& known : chunks) {
      if (known.hash == chunk) return &known;
    }
    return nullptr;
  }
  void learn(std::uint64_t chunk) {
    chunks[next] = {chunk, -1};
    next = (next + 1) % chunks.size();
  }
};

/// All agents. When there are too many all are forgotten.
class KnownAgents {
 public:
  /// Valid until `trim`.
  KnownAgent& of(std::string_view name) {
    const auto [place, fresh] = agents_.try_emplace(std::string(name));
    if (fresh) place->second.number = next_++;
    return place->second;
  }
  /// What the fragment cache holds of the agent is not found any more.
  void number_anew(KnownAgent& agent) { agent.number = next_++; }
  void trim() {
    constexpr std::size_t kMost = 16384;
    if (agents_.size() > kMost) agents_.clear();
  }

 private:
  std::unordered_map<std::string, KnownAgent> agents_;
  std::uint16_t next_ = 0;
};

}  // namespace millrace
