#include "split_memory.h"

#include <utility>

#include "millrace/plugin.h"

namespace millrace {

namespace {

/// Sessions are given on in batches of at most this many: enough for a model to work on, and small
/// enough to be in the cache.
constexpr std::size_t kBatch = 64;

SessionLimits limits(const SplitOptions& options) {
  SessionLimits limits;
  limits.packets = options.packets;
  limits.delay = options.delay;
  limits.idle = options.idle;
  limits.max_sessions = options.max_sessions;
  limits.max_bytes = options.max_bytes.bytes;
  limits.max_fragments = options.max_fragments;
  limits.layer = options.keep;
  return limits;
}

}  // namespace

SplitMemory::SplitMemory(const SplitOptions& options) : table_(limits(options)) {}

void SplitMemory::open(Context& context) {
  context_ = &context;
  sessions_ = &context.counter("sessions");
  fragments_ = &context.counter("joined-fragments");
  evicted_ = &context.counter("evicted");
  forgotten_ = &context.counter("forgotten");
}

void SplitMemory::process(Batch<Packet>& in, Output<Session>& out) {
  out_ = &out;
  const auto sink = [this](const Session& session, std::uint64_t born) { emit(session, born); };
  const std::uint64_t number = ledger_.add(std::move(in.receipt));
  watermark_ = std::max(watermark_, in.watermark);
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
  sessions_->add(now.sessions - reported_.sessions);
  fragments_->add(now.joined_fragments - reported_.joined_fragments);
  forgotten_->add(now.forgotten - reported_.forgotten);
  const auto drop = [this](std::string_view reason, std::uint64_t n) {
    if (n != 0) context_->dropped(reason, n);
  };
  drop("after-due", now.after_due - reported_.after_due);
  drop("lost-fragment", now.lost_fragments - reported_.lost_fragments);
  for (std::size_t kind = 0; kind < now.undecodable.size(); ++kind) {
    drop(to_string(static_cast<Decode>(kind)), now.undecodable[kind] - reported_.undecodable[kind]);
  }
  reported_ = now;
}

}  // namespace millrace

using namespace millrace;

MILLRACE_PLUGIN(
    "split-memory", MILLRACE_VERSION,
    transform<SplitMemory, SplitOptions>(
        "split-memory", "Groups packets into sessions, in memory",
        option<&SplitOptions::packets>("packets",
                                       "packets that make a session full, and due at once")
            .between(1, 65535),
        option<&SplitOptions::delay>(
            "delay",
            "time after its first packet when a session is due at the latest, in the time "
            "of the packets")
            .at_least(Duration(0)),
        option<&SplitOptions::idle>(
            "idle",
            "a five-tuple that was due begins a new session after so long without a packet; "
            "a TCP SYN begins one at once")
            .at_least(Duration(0)),
        option<&SplitOptions::max_sessions>(
            "max_sessions",
            "five-tuples remembered, about 180 bytes each; when the table is full the done one "
            "that was idle for longest is forgotten, and if none is done the oldest session is "
            "given on early, with reason 'evicted'")
            .between(1, 1U << 30U),
        option<&SplitOptions::max_bytes>(
            "max_bytes",
            "packet bytes held of sessions that are not due yet; beyond it the oldest "
            "session is given on early, with reason 'evicted'")
            .at_least(1_MiB),
        option<&SplitOptions::max_fragments>(
            "max_fragments",
            "fragmented IP packets remembered, so that later fragments find their "
            "session; about 100 bytes each")
            .between(0, 1U << 24U),
        option<&SplitOptions::keep>(
            "keep",
            "the lowest layer whose bytes are kept of each packet: l7 the transport payload, "
            "l4 from the transport header on, l2 the whole packet; a model needs the layer "
            "that its card names")
            .choices({{"l7", Layer::l7}, {"l4", Layer::l4}, {"l2", Layer::l2}}))
        .single("keeps the state of all sessions")
        .aggregates())
