#include "chunk_registry.h"

#include <algorithm>

namespace millrace {

namespace {

void wake_all(const std::vector<std::weak_ptr<Wakeup>>& waiters) {
  for (const auto& waiter : waiters) {
    if (const auto wakeup = waiter.lock()) wakeup->wake();
  }
}

}  // namespace

ChunkRegistry::Claim ChunkRegistry::claim(const Origin& origin,
                                          const std::shared_ptr<Wakeup>& waiter) {
  const std::lock_guard lock(mutex_);
  if (const auto named = by_name_.find(origin.agent); named != by_name_.end()) {
    Agent& known = *named->second;
    if (const auto found = known.by_chunk.find(origin.chunk); found != known.by_chunk.end()) {
      known.order.splice(known.order.begin(), known.order, found->second);
      agents_.splice(agents_.begin(), agents_, named->second);
      return {Claim::State::finished, 0, found->second->counts};
    }
  }
  const auto [place, added] = under_way_.try_emplace({origin.agent, origin.chunk});
  UnderWay& under_way = place->second;
  if (added) {
    under_way.ticket = next_ticket_++;
    return {Claim::State::mine, under_way.ticket, {}};
  }
  std::erase_if(under_way.waiters, [](const auto& other) { return other.expired(); });
  const bool waits = std::ranges::any_of(under_way.waiters,
                                         [&](const auto& other) { return other.lock() == waiter; });
  if (!waits) under_way.waiters.push_back(waiter);
  return {Claim::State::busy, 0, {}};
}

void ChunkRegistry::finish(const Origin& origin, std::uint64_t ticket, Counts counts) {
  std::vector<std::weak_ptr<Wakeup>> waiters;
  {
    const std::lock_guard lock(mutex_);
    waiters = take_waiters({origin.agent, origin.chunk}, ticket);
    Agent& of = agent(origin.agent);
    if (!of.by_chunk.contains(origin.chunk)) {
      of.order.push_front({origin.chunk, counts});
      of.by_chunk.emplace(of.order.front().chunk, of.order.begin());
      if (of.order.size() > most_) {
        of.by_chunk.erase(of.order.back().chunk);
        of.order.pop_back();
      }
    }
  }
  wake_all(waiters);
}

void ChunkRegistry::release(const Origin& origin, std::uint64_t ticket) {
  std::vector<std::weak_ptr<Wakeup>> waiters;
  {
    const std::lock_guard lock(mutex_);
    waiters = take_waiters({origin.agent, origin.chunk}, ticket);
  }
  wake_all(waiters);
}

ChunkRegistry::Agent& ChunkRegistry::agent(const std::string& name) {
  if (const auto found = by_name_.find(name); found != by_name_.end()) {
    agents_.splice(agents_.begin(), agents_, found->second);
    return agents_.front();
  }
  agents_.push_front({name, {}, {}});
  by_name_.emplace(agents_.front().name, agents_.begin());
  if (agents_.size() > most_agents_) {
    by_name_.erase(agents_.back().name);
    agents_.pop_back();
  }
  return agents_.front();
}

std::vector<std::weak_ptr<Wakeup>> ChunkRegistry::take_waiters(const Key& key,
                                                               std::uint64_t ticket) {
  const auto found = under_way_.find(key);
  if (found == under_way_.end() || found->second.ticket != ticket) return {};
  auto waiters = std::move(found->second.waiters);
  under_way_.erase(found);
  return waiters;
}

}  // namespace millrace
