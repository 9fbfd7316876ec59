#include "ticket_store.h"

#include <iterator>
#include <utility>

namespace millrace {

void TicketStore::put(std::vector<Held> tickets, Time due) {
  std::unique_lock lock(mutex_);
  // A batch that is larger than the store fits when the store is empty.
  room_.wait(lock, [&] { return size_ == 0 || size_ + tickets.size() <= max_tickets_; });
  size_ += tickets.size();
  add(std::move(tickets), closed_ ? Time() : due);
}

void TicketStore::put_back(std::vector<Held> tickets, Time due) {
  const std::lock_guard lock(mutex_);
  pause_.failed(std::chrono::steady_clock::now());
  add(std::move(tickets), due);
}

void TicketStore::add(std::vector<Held> tickets, Time due) {
  if (due <= std::chrono::steady_clock::now()) {
    std::ranges::move(tickets, std::back_inserter(queue_));
  } else {
    for (Held& held : tickets) waiting_.emplace(due, std::move(held));
  }
  ready_.notify_one();
}

void TicketStore::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  for (auto& [due, held] : waiting_) queue_.push_back(std::move(held));
  waiting_.clear();
  ready_.notify_one();
}

std::vector<TicketStore::Held> TicketStore::take(std::size_t most,
                                                 std::chrono::milliseconds patience) {
  const Time give_up = std::chrono::steady_clock::now() + patience;
  std::unique_lock lock(mutex_);
  while (true) {
    const Time now = std::chrono::steady_clock::now();
    while (!waiting_.empty() && waiting_.begin()->first <= now) {
      queue_.push_back(std::move(waiting_.begin()->second));
      waiting_.erase(waiting_.begin());
    }
    const bool paused = now < pause_.until();
    if (now >= give_up) {
      if (paused) return {};
      break;
    }
    if (!queue_.empty() && !paused) break;
    Time next = give_up;
    if (paused) {
      next = std::min(next, pause_.until());
    } else if (!waiting_.empty()) {
      next = std::min(next, waiting_.begin()->first);
    }
    ready_.wait_until(lock, next);
  }
  std::vector<Held> taken;
  while (!queue_.empty() && taken.size() < most) {
    taken.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  return taken;
}

void TicketStore::settle(std::size_t tickets) {
  const std::lock_guard lock(mutex_);
  pause_.done();
  remove(tickets);
}

void TicketStore::give_up(std::size_t tickets) {
  const std::lock_guard lock(mutex_);
  pause_.failed(std::chrono::steady_clock::now());
  remove(tickets);
}

void TicketStore::remove(std::size_t tickets) {
  size_ -= tickets;
  room_.notify_all();
  if (size_ == 0) ready_.notify_one();
}

bool TicketStore::finished() const {
  const std::lock_guard lock(mutex_);
  return closed_ && size_ == 0;
}

std::size_t TicketStore::size() const {
  const std::lock_guard lock(mutex_);
  return size_;
}

}  // namespace millrace
