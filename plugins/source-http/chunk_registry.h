#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "millrace/packet.h"

#include "wakeup.h"

namespace millrace {

/// Which chunks are under way and which have been delivered. Any thread.
///
/// Remembers the `chunks` that were delivered or asked for last of each of the `agents` that were
/// heard last; what is forgotten and comes again is taken again.
class ChunkRegistry {
 public:
  struct Counts {
    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;
  };
  struct Claim {
    enum class State : std::uint8_t { mine, finished, busy };
    State state = State::mine;
    std::uint64_t ticket = 0;  ///< if mine; never 0
    Counts counts;             ///< if finished
  };

  ChunkRegistry(std::size_t agents, std::size_t chunks) : most_agents_(agents), most_(chunks) {}

  /// `waiter` is woken when a busy chunk is no longer under way.
  [[nodiscard]] Claim claim(const Origin& origin, const std::shared_ptr<Wakeup>& waiter);
  /// The chunk was delivered.
  void finish(const Origin& origin, std::uint64_t ticket, Counts counts);
  /// It was not, or not yet: it may be claimed again. Does nothing if `ticket` has been given back.
  void release(const Origin& origin, std::uint64_t ticket);

 private:
  struct Finished {
    std::string chunk;
    Counts counts;
  };
  struct Agent {
    std::string name;
    std::list<Finished> order;  ///< the latest first
    std::unordered_map<std::string_view, std::list<Finished>::iterator> by_chunk;
  };
  struct UnderWay {
    std::uint64_t ticket = 0;
    std::vector<std::weak_ptr<Wakeup>> waiters;
  };
  using Key = std::pair<std::string, std::string>;

  Agent& agent(const std::string& name);
  std::vector<std::weak_ptr<Wakeup>> take_waiters(const Key& key, std::uint64_t ticket);

  const std::size_t most_agents_;
  const std::size_t most_;
  std::mutex mutex_;
  std::uint64_t next_ticket_ = 1;
  std::map<Key, UnderWay> under_way_;
  std::list<Agent> agents_;  ///< the latest first
  std::unordered_map<std::string_view, std::list<Agent>::iterator> by_name_;
};

}  // namespace millrace
