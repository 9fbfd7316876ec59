#include "run/queue.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace millrace::host {

namespace {

std::size_t bytes_of(const BatchBase& batch, std::size_t items) {
  return items * batch.type().size + batch.storage_bytes;
}

/// One batch of all, in their order. Neighbours are joined until one is left, so that receipts and
/// storages nest only as deep as the logarithm of their number: they are resolved and freed by
/// recursion.
BoxedBatch join(std::vector<BoxedBatch> parts) {
  while (parts.size() > 1) {
    std::vector<BoxedBatch> joined;
    for (std::size_t i = 0; i < parts.size(); i += 2) {
      if (i + 1 < parts.size()) parts[i]->type().append(*parts[i], std::move(*parts[i + 1]));
      joined.push_back(std::move(parts[i]));
    }
    parts = std::move(joined);
  }
  return std::move(parts.front());
}

}  // namespace

BatchQueue::BatchQueue(const QueueOptions& options, std::size_t producers, std::size_t items)
    : options_(options),
      least_items_(items),
      open_producers_(producers),
      watermarks_(producers, kNoTime),
      done_(producers, 0) {}

bool BatchQueue::full_for(std::size_t bytes) const {
  if (entries_.empty()) return false;  // a batch larger than the bound must still pass
  return (entries_.size() >= options_.batches && items_ >= least_items_) ||
         bytes_ + bytes > options_.bytes.bytes;
}

std::vector<BoxedBatch> BatchQueue::push(BoxedBatch batch, std::size_t producer) {
  std::vector<BoxedBatch> dropped;
  const std::size_t items = batch->type().count(*batch);
  const std::size_t bytes = bytes_of(*batch, items);
  {
    std::unique_lock lock(mutex_);
    if (options_.when_full == WhenFull::block) {
      room_.wait(lock, [&] { return abandoned_ || lossy_ || !full_for(bytes); });
    } else if (options_.when_full == WhenFull::drop_oldest) {
      while (!abandoned_ && full_for(bytes)) dropped.push_back(take_front());
    }
    if (abandoned_ || full_for(bytes)) {
      dropped.push_back(std::move(batch));
      return dropped;
    }
    bytes_ += bytes;
    items_ += items;
    entries_.push_back({std::move(batch), producer, bytes, items});
  }
  filled_.notify_one();
  return dropped;
}

void BatchQueue::producer_done(std::size_t producer) {
  {
    const std::lock_guard lock(mutex_);
    done_[producer] = 1;
    --open_producers_;
  }
  filled_.notify_all();
}

BoxedBatch BatchQueue::take_front() {
  Entry entry = std::move(entries_.front());
  entries_.pop_front();
  bytes_ -= entry.bytes;
  items_ -= entry.items;

  if (entry.batch->watermark != kNoTime) watermarks_[entry.producer] = entry.batch->watermark;
  Timestamp lowest = Timestamp::max();
  for (std::size_t i = 0; i < watermarks_.size(); ++i) {
    // A producer that has ended holds time back no longer, unless it is all there is.
    if (i == entry.producer || done_[i] == 0) lowest = std::min(lowest, watermarks_[i]);
  }
  watermark_ = lowest;
  entry.batch->watermark = watermark_;
  return std::move(entry.batch);
}

BatchQueue::Popped BatchQueue::pop(const Coalesce& coalesce, std::chrono::milliseconds patience) {
  Popped popped;
  std::unique_lock lock(mutex_);
  const auto ready = [&] { return !forming_ && (!entries_.empty() || open_producers_ == 0); };
  if (!filled_.wait_for(lock, patience, ready)) {
    popped.kind = Popped::Kind::idle;
    popped.watermark = watermark_;
    return popped;
  }
  if (entries_.empty()) return popped;

  popped.kind = Popped::Kind::batch;
  std::vector<BoxedBatch> parts;
  parts.push_back(take_front());
  popped.number = next_number_++;
  const auto items = [](const BoxedBatch& batch) { return batch->type().count(*batch); };
  std::size_t together = items(parts.front());
  const auto until = std::chrono::steady_clock::now() + coalesce.max_wait;
  // Another worker must not take what this one is still waiting for: the order would be lost.
  forming_ = coalesce.items > 0;
  while (together < coalesce.items) {
    room_.notify_all();
    if (!filled_.wait_until(lock, until,
                            [&] { return !entries_.empty() || open_producers_ == 0; }) ||
        entries_.empty()) {
      break;
    }
    // Joining must not take a batch that is large enough alone.
    if (items(entries_.front().batch) >= coalesce.items) break;
    parts.push_back(take_front());
    together += items(parts.back());
  }
  const bool formed = std::exchange(forming_, false);
  lock.unlock();
  room_.notify_all();
  if (formed) filled_.notify_all();
  popped.batch = join(std::move(parts));
  return popped;
}

void BatchQueue::set_lossy(bool lossy) {
  {
    const std::lock_guard lock(mutex_);
    lossy_ = lossy;
  }
  if (lossy) room_.notify_all();
}

std::vector<BoxedBatch> BatchQueue::abandon() {
  std::vector<BoxedBatch> left;
  {
    const std::lock_guard lock(mutex_);
    abandoned_ = true;
    while (!entries_.empty()) left.push_back(take_front());
  }
  room_.notify_all();
  return left;
}

}  // namespace millrace::host
