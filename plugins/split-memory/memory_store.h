#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "millrace/session_table.h"
#include "millrace/ticket.h"

namespace millrace {

/// The sessions of many agents between the stage that splits packets and the one that claims
/// sessions, in this process's memory. Every agent has a table with a clock of its own, so that
/// agents whose times differ do not disturb one another. Threads: any.
class MemoryStore {
 public:
  /// Before the first `add`. `limits` are those of one agent's table. Beyond `max_agents` the one
  /// that was silent for longest is flushed.
  void configure(const SessionLimits& limits, std::size_t max_agents);

  struct Added {
    std::vector<Ticket> tickets;
    std::shared_ptr<std::deque<std::string>> names;  ///< what the tickets' agents point into
    SessionCounts counts;                            ///< of this call
    std::uint64_t repeated = 0;                      ///< packets of a chunk that came before
  };
  /// All `packets` are of one origin.
  [[nodiscard]] Added add(std::span<const Packet> packets);

  struct Claimed {
    Batch<Session> sessions;
    std::vector<SessionId> ids;
    std::uint64_t already_done = 0;  ///< tickets whose sessions are done or in work
  };
  /// The sessions stay in the store, leased, until `settle`.
  [[nodiscard]] Claimed claim(std::span<const Ticket> tickets);
  /// Done sessions are deleted, failed ones can be claimed again.
  void settle(std::span<const SessionId> ids, Outcome outcome);

  /// Bytes of sessions that are due and not settled.
  [[nodiscard]] std::size_t bytes_due() const;

 private:
  struct Agent {
    std::string name;
    std::unique_ptr<SessionTable> table;
    std::uint64_t used = 0;  ///< the call that used it last
    /// Next packet number by chunk; the oldest chunks are forgotten first.
    std::unordered_map<std::string, std::uint32_t> chunks;
    std::deque<std::string> chunk_order;
  };
  /// The storage of sessions that became due together, counted while one of them is there.
  struct Block;
  struct Waiting {
    Session session;
    std::shared_ptr<Block> block;
    bool leased = false;
  };
  struct HashId {
    std::size_t operator()(const SessionId& id) const noexcept;
  };

  Agent& agent(std::string_view name, Added& added);
  void make_room(Added& added);
  [[nodiscard]] std::uint32_t first_new(Agent& agent, const Packet& first, std::size_t count);
  /// Moves what is in `batch_` to the sessions that wait.
  void keep();
  void ticket(Added& added, const SessionInfo& info, Due why) const;

  mutable std::mutex mutex_;
  SessionLimits limits_;
  std::size_t max_agents_ = 1;
  std::map<std::string, Agent, std::less<>> agents_;
  std::uint64_t calls_ = 0;
  Added* adding_ = nullptr;  ///< during a call of `add`
  SessionBatch batch_;
  std::unordered_map<SessionId, Waiting, HashId> waiting_;
  std::shared_ptr<std::size_t> bytes_due_ = std::make_shared<std::size_t>(0);
};

}  // namespace millrace
