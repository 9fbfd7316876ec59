#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "millrace/session_table.h"
#include "millrace/stage.h"

#include "split_counters.h"

namespace millrace {

struct SplitOptions {
  std::uint32_t packets = 24;
  Duration delay = std::chrono::seconds(10);
  Duration idle = std::chrono::seconds(60);
  Duration remember = std::chrono::minutes(5);
  std::uint32_t max_sessions = 1U << 20U;
  ByteSize max_bytes = 1_GiB;
  std::uint32_t max_fragments = 4096;
  Layer keep = Layer::l7;
  // Only of split-memory.tickets:
  std::uint32_t max_agents = 1024;
  std::string server{};
};

[[nodiscard]] SessionLimits session_limits(const SplitOptions& options);

/// Groups packets into sessions in this process's memory (millrace/session_table.h).
class SplitMemory final : public Transform<Packet, Session> {
 public:
  explicit SplitMemory(const SplitOptions& options);

  void open(Context& context) override;
  void process(Batch<Packet>& in, Output<Session>& out) override;
  void flush(Output<Session>& out) override;

 private:
  void emit(const Session& session, std::uint64_t born);
  void push(Output<Session>& out, Timestamp watermark);
  void report();

  SessionTable table_;
  SessionBatch batch_;
  ReceiptLedger ledger_;
  std::vector<std::uint64_t> born_;  ///< of the sessions in batch_
  Context* context_ = nullptr;
  Output<Session>* out_ = nullptr;  ///< during a call
  Timestamp watermark_ = kNoTime;
  SessionCounts reported_;
  SplitCounters counters_;
  Counter* evicted_ = nullptr;
};

}  // namespace millrace
