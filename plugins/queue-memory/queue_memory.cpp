#include "queue_memory.h"

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "millrace/plugin.h"

namespace millrace {

namespace {

using std::chrono::milliseconds;

/// Both halves of a queue stage ask under its name; the host adds ".in" and ".out" to it.
std::shared_ptr<TicketStore> store_of(Context& context, const QueueMemoryOptions& options) {
  const std::string_view stage = context.stage();
  auto store =
      context.shared<TicketStore>(fmt::format("queue-memory/{}", stage.substr(0, stage.rfind('.'))),
                                  [] { return std::make_shared<TicketStore>(); });
  store->configure(options.max_tickets);
  return store;
}

/// Full jitter, as the host's own retries: up to 50 ms the first time, 5 s at most.
milliseconds pause_after(std::uint32_t attempts) {
  constexpr std::int64_t kFirst = 50;
  constexpr std::int64_t kMost = 5000;
  const std::int64_t bound = std::min(kMost, kFirst << std::min<std::uint32_t>(attempts, 10));
  thread_local std::minstd_rand random(std::random_device{}());
  return milliseconds(std::uniform_int_distribution<std::int64_t>(1, bound)(random));
}

}  // namespace

void QueueMemoryIn::open(Context& context) {
  store_ = store_of(context, options_);
  delayed_ = &context.counter("delayed");
}

void QueueMemoryIn::write(Batch<Ticket>& in) {
  std::vector<TicketStore::Held> now;
  std::vector<TicketStore::Held> later;
  for (const Ticket& ticket : in.items) {
    (ticket.why == Due::timeout ? later : now).push_back({ticket, in.storage, 0});
  }
  delayed_->add(later.size());
  const auto time = std::chrono::steady_clock::now();
  if (!now.empty()) store_->put(std::move(now), time);
  if (!later.empty()) store_->put(std::move(later), time + options_.delay);
}

void QueueMemoryIn::flush() { store_->close(); }

void QueueMemoryOut::open(Context& context) {
  context_ = &context;
  store_ = store_of(context, options_);
  retried_ = &context.counter("retried");
  dead_ = &context.counter("dead");
}

/// Tickets that were given out; resolved on whatever thread ends their receipt.
class QueueMemoryOut::Work {
 public:
  Work(QueueMemoryOut& owner, std::vector<TicketStore::Held> tickets)
      : store_(owner.store_),
        context_(owner.context_),
        retried_(owner.retried_),
        dead_(owner.dead_),
        max_attempts_(owner.options_.max_attempts),
        tickets_(std::move(tickets)) {}

  void resolve(Outcome outcome) {
    if (outcome == Outcome::done) return store_->settle(tickets_.size());
    std::vector<TicketStore::Held> again;
    for (TicketStore::Held& held : tickets_) {
      if (++held.attempts < max_attempts_) again.push_back(std::move(held));
    }
    const std::size_t dead = tickets_.size() - again.size();
    if (dead != 0) {
      dead_->add(dead);
      context_->error(
          fmt::format("{} tickets given up after {} attempts; their sessions stay "
                      "unclassified",
                      dead, max_attempts_));
      store_->give_up(dead);
    }
    if (again.empty()) return;
    retried_->add(again.size());
    const auto due = std::chrono::steady_clock::now() + pause_after(again.front().attempts);
    store_->put_back(std::move(again), due);
  }

 private:
  std::shared_ptr<TicketStore> store_;
  Context* context_;
  Counter* retried_;
  Counter* dead_;
  std::uint32_t max_attempts_;
  std::vector<TicketStore::Held> tickets_;
};

void QueueMemoryOut::run(Output<Ticket>& out, std::stop_token /*stop*/) {
  constexpr milliseconds kPatience{100};
  while (!store_->finished()) {
    std::vector<TicketStore::Held> held = store_->take(options_.batch, kPatience);
    Batch<Ticket> batch;
    auto storages = std::make_shared<std::vector<std::shared_ptr<const void>>>();
    for (const TicketStore::Held& one : held) {
      batch.items.push_back(one.ticket);
      if (storages->empty() || storages->back() != one.storage) storages->push_back(one.storage);
    }
    batch.storage = std::move(storages);
    if (!held.empty()) {
      batch.receipt =
          Receipt::make([work = Work(*this, std::move(held))](Outcome outcome) mutable noexcept {
            work.resolve(outcome);
          });
    }
    out.push(std::move(batch));
  }
}

}  // namespace millrace

using namespace millrace;

MILLRACE_PLUGIN(
    "queue-memory", MILLRACE_VERSION,
    queue<QueueMemoryIn, QueueMemoryOut, QueueMemoryOptions>(
        "queue-memory", "Hands tickets over inside this process, those of new sessions delayed",
        option<&QueueMemoryOptions::delay>(
            "delay", "how long the ticket of a session that has begun is held back")
            .at_least(Duration(0)),
        option<&QueueMemoryOptions::batch>("batch", "tickets that are given out together at most")
            .between(1, 65536),
        option<&QueueMemoryOptions::max_tickets>(
            "max_tickets",
            "tickets held, about 150 bytes each; while there are so many, no more are taken in")
            .between(1, 1U << 30U),
        option<&QueueMemoryOptions::max_attempts>(
            "max_attempts",
            "how often a ticket is given out before it is given up and counted as dead")
            .between(1, 1000000),
        option<&QueueMemoryOptions::server>(
            "server",
            "has no effect: it is there so that a pipeline file written for queue-rabbit needs "
            "another 'use' only"),
        option<&QueueMemoryOptions::name>("name", "has no effect, likewise"))
        .whole("holds its tickets in this process's memory"))
