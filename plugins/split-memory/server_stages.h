#pragma once

#include <memory>
#include <string>

#include "millrace/stage.h"

#include "memory_store.h"
#include "split_counters.h"
#include "split_memory.h"

namespace millrace {

/// Packets of many agents into a store in this process; tells by tickets which sessions are there.
/// The host acknowledges a batch when its tickets are in the queue: sessions do not survive the
/// process.
class SplitTickets final : public Transform<Packet, Ticket> {
 public:
  explicit SplitTickets(const SplitOptions& options) : options_(options) {}

  void open(Context& context) override;
  void process(Batch<Packet>& in, Output<Ticket>& out) override;

 private:
  const SplitOptions options_;
  Context* context_ = nullptr;
  std::shared_ptr<MemoryStore> store_;
  SplitCounters counters_;
};

struct ClaimOptions {
  std::string server{};
};

/// Takes the sessions that tickets name out of the store of SplitTickets, each once; one whose
/// receipt fails can be claimed again.
class ClaimMemory final : public Transform<Ticket, Session> {
 public:
  void open(Context& context) override;
  void process(Batch<Ticket>& in, Output<Session>& out) override;

 private:
  Context* context_ = nullptr;
  std::shared_ptr<MemoryStore> store_;
};

}  // namespace millrace
