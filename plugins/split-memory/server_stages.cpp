#include "server_stages.h"

#include <span>
#include <utility>
#include <vector>

namespace millrace {

namespace {

/// One in a pipeline; whichever stage opens first makes it.
std::shared_ptr<MemoryStore> store_of(Context& context) {
  return context.shared<MemoryStore>("split-memory",
                                     [] { return std::make_shared<MemoryStore>(); });
}

}  // namespace

void SplitTickets::open(Context& context) {
  context_ = &context;
  counters_.open(context);
  store_ = store_of(context);
  store_->configure(session_limits(options_), options_.max_agents);
}

void SplitTickets::process(Batch<Packet>& in, Output<Ticket>& out) {
  if (store_->bytes_due() > options_.max_bytes.bytes) {
    throw Transient("more than max_bytes of sessions wait to be claimed");
  }
  std::span<const Packet> rest(in.items);
  while (!rest.empty()) {
    std::size_t same = 1;
    while (same < rest.size() && rest[same].origin == rest.front().origin) ++same;
    MemoryStore::Added added = store_->add(rest.first(same));
    rest = rest.subspan(same);
    counters_.add(added.counts);
    context_->handled(added.counts.stored);
    if (added.repeated != 0) context_->dropped("repeated", added.repeated);
    if (added.tickets.empty()) continue;
    Batch<Ticket> tickets(std::move(added.tickets));
    tickets.storage = std::move(added.names);
    out.push(std::move(tickets));
  }
}

void ClaimMemory::open(Context& context) {
  context_ = &context;
  store_ = store_of(context);
}

void ClaimMemory::process(Batch<Ticket>& in, Output<Session>& out) {
  if (in.items.empty()) return;
  MemoryStore::Claimed claimed = store_->claim(in.items);
  if (claimed.already_done != 0) context_->dropped("already-done", claimed.already_done);
  context_->handled(claimed.ids.size());
  if (claimed.ids.empty()) return;
  claimed.sessions.receipt =
      Receipt::make([store = store_, ids = std::move(claimed.ids),
                     receipt = in.receipt.fork()](Outcome outcome) mutable noexcept {
        store->settle(ids, outcome);
        receipt.resolve(outcome);
      });
  out.push(std::move(claimed.sessions));
}

}  // namespace millrace
