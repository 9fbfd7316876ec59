#include "split_memory.h"

#include <utility>

namespace millrace {

namespace {

/// Sessions are given on in batches of at most this many: enough for a model to work on, and small
/// enough to be in the cache.
constexpr std::size_t kBatch = 64;

}  // namespace

SessionLimits session_limits(const SplitOptions& options) {
  SessionLimits limits;
  limits.packets = options.packets;
  limits.delay = options.delay;
  limits.idle = options.idle;
  limits.remember = options.remember;
  limits.max_sessions = options.max_sessions;
  limits.max_bytes = options.max_bytes.bytes;
  limits.max_fragments = options.max_fragments;
  limits.layer = options.keep;
  return limits;
}

SplitMemory::SplitMemory(const SplitOptions& options) : table_(session_limits(options)) {
  table_.gather_into(&batch_);
}

void SplitMemory::open(Context& context) {
  context_ = &context;
  counters_.open(context);
  evicted_ = &context.counter("evicted");
}

void SplitMemory::process(Batch<Packet>& in, Output<Session>& out) {
  out_ = &out;
  const auto sink = [this](const Session& session, std::uint64_t born) { emit(session, born); };
  const std::uint64_t number = ledger_.add(std::move(in.receipt));
  // At the end of a stream what comes out is still of the time before.
  if (in.watermark != kNoTime && in.watermark != kStreamEnds) watermark_ = in.watermark;
  // A session that begins in this batch may be due in this batch too, so the hold must be there
  // before it can be released; what was held too much is forgotten below.
  const std::uint64_t before = table_.counts().sessions;
  ledger_.hold(number, in.items.size());
  table_.add(in.items, number, sink);
  ledger_.forget(number, in.items.size() - (table_.counts().sessions - before));
  table_.advance(in.watermark, sink);
  push(out, watermark_);
  ledger_.settle();
  report();
}

void SplitMemory::flush(Output<Session>& out) {
  out_ = &out;
  table_.flush([this](const Session& session, std::uint64_t born) { emit(session, born); });
  push(out, watermark_);
  report();
}

void SplitMemory::emit(const Session& session, std::uint64_t born) {
  batch_.add(session);
  born_.push_back(born);
  if (session.info.due == Due::evicted) evicted_->add();
  if (batch_.size() >= kBatch) push(*out_, watermark_);
}

void SplitMemory::push(Output<Session>& out, Timestamp watermark) {
  if (batch_.size() == 0) return;
  Batch<Session> batch = batch_.take();
  batch.watermark = watermark;
  batch.receipt = ledger_.release(std::exchange(born_, {}));
  std::uint64_t packets = 0;
  for (const Session& session : batch.items) packets += session.info.packets;
  context_->handled(packets);
  out.push(std::move(batch));
}

/// Adds what has changed since the last time to the stage's account.
void SplitMemory::report() {
  const SessionCounts& now = table_.counts();
  counters_.add(difference(now, reported_));
  reported_ = now;
}

}  // namespace millrace
