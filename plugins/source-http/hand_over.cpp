#include "hand_over.h"

#include <utility>

namespace millrace {

bool HandOver::put(Batch<Packet>& batch, Duration patience, const std::atomic<bool>& stopped) {
  // Short steps, so that a stop is seen without anyone having to know who waits here.
  constexpr std::chrono::milliseconds kStep{50};
  const auto deadline = SteadyClock::now() + patience;
  std::unique_lock lock(mutex_);
  while (!closed_ && batches_.size() >= most_) {
    if (stopped || SteadyClock::now() >= deadline) return false;
    room_.wait_for(lock, kStep);
  }
  if (closed_ || stopped) return false;
  if (batches_.size() + 1 == most_ && !pushing_) moved_ = SteadyClock::now();
  batches_.push_back(std::move(batch));
  lock.unlock();
  filled_.notify_one();
  return true;
}

std::optional<Batch<Packet>> HandOver::take(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  pushing_ = false;
  const auto taken = [this] {
    moved_ = SteadyClock::now();
    pushing_ = true;
  };
  if (!filled_.wait_for(lock, patience, [this] { return !batches_.empty(); })) {
    taken();
    return std::nullopt;
  }
  std::optional<Batch<Packet>> batch(std::move(batches_.front()));
  batches_.pop_front();
  taken();
  lock.unlock();
  room_.notify_one();
  return batch;
}

void HandOver::close() {
  std::deque<Batch<Packet>> dropped;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    dropped.swap(batches_);
  }
  room_.notify_all();
}

Duration HandOver::blocked_for() const {
  const std::lock_guard lock(mutex_);
  return batches_.size() < most_ && !pushing_ ? Duration(0) : SteadyClock::now() - moved_;
}

}  // namespace millrace
