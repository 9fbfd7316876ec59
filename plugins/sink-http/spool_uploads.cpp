// The uploaders' side of the spool.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "spool.h"
#include "spool_counters.h"

namespace millrace {

Chunk* Spool::take(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    const auto now = std::chrono::steady_clock::now();
    auto again = now + std::chrono::seconds(1);
    if (schedule_.open(now, under_way_)) {
      for (const auto& [order, chunk] : chunks_) {
        if (chunk->state != Chunk::State::waiting) continue;
        if (schedule_.ready(chunk->retry, now)) {
          chunk->state = Chunk::State::under_way;
          ++under_way_;
          return chunk.get();
        }
        again = std::min(again, chunk->retry.not_before);
      }
    } else if (schedule_.opens() > now) {
      again = std::min(again, schedule_.opens());
    }
    const std::uint64_t seen = changes_;
    changed_.wait_until(lock, stop, again, [&] { return changes_ != seen; });
  }
  return nullptr;
}

void Spool::settle(Chunk& chunk, const Answer& answer) {
  Receipts done;
  {
    const std::lock_guard lock(mutex_);
    --under_way_;
    chunk.state = Chunk::State::waiting;
    switch (answer.verdict) {
      case Answer::Verdict::delivered:
        schedule_.succeeded();
        counters_->uploaded.add();
        counters_->uploaded_packets.add(chunk.packets);
        counters_->uploaded_bytes.add(chunk.bytes);
        if (chunk.mine) context_.handled(chunk.packets);
        store_->remove(chunk);
        done = forget(chunk);
        if (used() < options_.spool_bytes.bytes / 10 * 9 || chunks_.empty()) room_.holds();
        break;
      case Answer::Verdict::rejected:
        schedule_.succeeded();
        counters_->rejected.add();
        put_aside(chunk, ChunkStore::Aside::rejected, answer.reason);
        done = forget(chunk);
        break;
      case Answer::Verdict::again:
        fail(chunk, Failure::again, answer);
        break;
      case Answer::Verdict::unreachable:
        fail(chunk, Failure::unreachable, answer);
        break;
      case Answer::Verdict::refused:
        fail(chunk, Failure::refused, answer);
        break;
      case Answer::Verdict::aborted:
        break;
    }
    notify();
  }
  for (Receipt& receipt : done) receipt.done();
}

void Spool::fail(Chunk& chunk, Failure failure, const Answer& answer) {
  (failure == Failure::refused ? counters_->refused : counters_->retried).add();
  schedule_.failed(chunk.retry, failure, answer.retry_after, std::chrono::steady_clock::now());
}

void Spool::damaged(Chunk& chunk, const std::string& reason) {
  Receipts done;
  {
    const std::lock_guard lock(mutex_);
    --under_way_;
    counters_->damaged.add();
    context_.warning(
        fmt::format("set aside in 'damaged': chunk {}: {}", chunk.name.file(), reason));
    put_aside(chunk, ChunkStore::Aside::damaged, reason);
    done = forget(chunk);
    notify();
  }
  for (Receipt& receipt : done) receipt.done();
}

void Spool::put_aside(Chunk& chunk, ChunkStore::Aside where, const std::string& reason) {
  drop(chunk, where == ChunkStore::Aside::rejected ? "rejected-by-server" : "damaged", {});
  try {
    store_->set_aside(chunk, where, reason);
    while (store_->aside_bytes() > options_.keep_rejected.bytes && store_->drop_aside()) {
    }
  } catch (const std::exception& error) {
    context_.error(fmt::format("left where it is until the next start: {}", error.what()));
  }
}

}  // namespace millrace
