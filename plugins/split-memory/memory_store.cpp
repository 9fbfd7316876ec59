#include "memory_store.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "split_counters.h"

namespace millrace {

namespace {

constexpr std::size_t kChunksRemembered = 1024;

}  // namespace

struct MemoryStore::Block {
  Block(std::shared_ptr<const void> what, std::size_t bytes, std::shared_ptr<std::size_t> counted)
      : storage(std::move(what)), size(bytes), sum(std::move(counted)) {
    *sum += size;
  }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block() { *sum -= size; }

  std::shared_ptr<const void> storage;
  std::size_t size;
  std::shared_ptr<std::size_t> sum;
};

std::size_t MemoryStore::HashId::operator()(const SessionId& id) const noexcept {
  std::size_t hash = 0;  // the id is a hash already
  std::memcpy(&hash, id.data(), sizeof hash);
  return hash;
}

void MemoryStore::configure(const SessionLimits& limits, std::size_t max_agents) {
  const std::lock_guard lock(mutex_);
  limits_ = limits;
  max_agents_ = max_agents;
}

MemoryStore::Added MemoryStore::add(std::span<const Packet> packets) {
  Added added;
  added.names = std::make_shared<std::deque<std::string>>();
  if (packets.empty()) return added;
  const std::lock_guard lock(mutex_);
  ++calls_;
  adding_ = &added;
  const Origin* origin = packets.front().origin;
  Agent& from = agent(origin == nullptr ? std::string_view() : origin->agent, added);
  const std::uint32_t skip = first_new(from, packets.front(), packets.size());
  added.repeated = skip;
  const SessionCounts before = from.table->counts();
  from.table->add(packets.subspan(skip), 0, [&](const Session& session, std::uint64_t) {
    batch_.add(session);
    // For what is due by time the ticket that was made when the session began is under way.
    if (session.info.due != Due::timeout) ticket(added, session.info, session.info.due);
  });
  added.counts = difference(from.table->counts(), before);
  keep();
  adding_ = nullptr;
  return added;
}

MemoryStore::Agent& MemoryStore::agent(std::string_view name, Added& added) {
  const auto found = agents_.find(name);
  if (found != agents_.end()) {
    found->second.used = calls_;
    return found->second;
  }
  while (agents_.size() >= max_agents_) make_room(added);
  Agent& fresh = agents_[std::string(name)];
  fresh.name = name;
  fresh.used = calls_;
  fresh.table = std::make_unique<SessionTable>(
      limits_,
      [this](const SessionInfo& info, std::uint64_t) { ticket(*adding_, info, Due::timeout); });
  return fresh;
}

void MemoryStore::make_room(Added& added) {
  const auto oldest =
      std::ranges::min_element(agents_, {}, [](const auto& entry) { return entry.second.used; });
  oldest->second.table->flush([&](const Session& session, std::uint64_t) {
    batch_.add(session);
    ticket(added, session.info, session.info.due);
  });
  keep();
  agents_.erase(oldest);
}

/// How many of the packets came before; the numbers of a chunk rise by one.
std::uint32_t MemoryStore::first_new(Agent& agent, const Packet& first, std::size_t count) {
  if (first.origin == nullptr || first.origin->chunk.empty()) return 0;
  const auto [place, fresh] = agent.chunks.try_emplace(first.origin->chunk, 0);
  if (fresh) {
    agent.chunk_order.push_back(place->first);
    if (agent.chunk_order.size() > kChunksRemembered) {
      agent.chunks.erase(agent.chunk_order.front());
      agent.chunk_order.pop_front();
    }
  }
  const auto end = first.number + static_cast<std::uint32_t>(count);
  const std::uint32_t next = std::exchange(place->second, std::max(place->second, end));
  return std::clamp(next, first.number, end) - first.number;
}

void MemoryStore::keep() {
  if (batch_.size() == 0) return;
  Batch<Session> due = batch_.take();
  const auto block = std::make_shared<Block>(std::move(due.storage), due.storage_bytes, bytes_due_);
  for (const Session& session : due.items) waiting_[session.info.id] = {session, block, false};
}

void MemoryStore::ticket(Added& added, const SessionInfo& info, Due why) const {
  Ticket& ticket = added.tickets.emplace_back();
  ticket.id = info.id;
  ticket.key = info.key;
  ticket.epoch = info.epoch;
  ticket.why = why;
  if (info.agent.empty()) return;
  if (added.names->empty() || added.names->back() != info.agent) {
    added.names->emplace_back(info.agent);
  }
  ticket.agent = added.names->back();
}

MemoryStore::Claimed MemoryStore::claim(std::span<const Ticket> tickets) {
  Claimed claimed;
  const std::lock_guard lock(mutex_);
  for (const Ticket& ticket : tickets) {
    const auto agent = agents_.find(ticket.agent);
    if (agent == agents_.end() || waiting_.contains(ticket.id)) continue;
    agent->second.table->expire(
        ticket.key, ticket.agent, ticket.id,
        [this](const Session& session, std::uint64_t) { batch_.add(session); });
  }
  keep();
  std::vector<std::shared_ptr<Block>> blocks;
  for (const Ticket& ticket : tickets) {
    const auto found = waiting_.find(ticket.id);
    // Where somebody works on it, that one's ticket comes back if the work fails.
    if (found == waiting_.end() || found->second.leased) {
      ++claimed.already_done;
      continue;
    }
    Waiting& session = found->second;
    session.leased = true;
    claimed.ids.push_back(ticket.id);
    claimed.sessions.items.push_back(session.session);
    if (blocks.empty() || blocks.back() != session.block) blocks.push_back(session.block);
  }
  // The storages only: the blocks are counted under the lock.
  auto storages = std::make_shared<std::vector<std::shared_ptr<const void>>>();
  for (const auto& block : blocks) {
    storages->push_back(block->storage);
    claimed.sessions.storage_bytes += block->size;
  }
  claimed.sessions.storage = std::move(storages);
  return claimed;
}

void MemoryStore::settle(std::span<const SessionId> ids, Outcome outcome) {
  const std::lock_guard lock(mutex_);
  for (const SessionId& id : ids) {
    const auto found = waiting_.find(id);
    if (found == waiting_.end()) continue;
    if (outcome == Outcome::done) {
      waiting_.erase(found);
    } else {
      found->second.leased = false;
    }
  }
}

std::size_t MemoryStore::bytes_due() const {
  const std::lock_guard lock(mutex_);
  return *bytes_due_;
}

}  // namespace millrace
