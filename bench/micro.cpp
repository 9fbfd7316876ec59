// The inner parts, each alone, with Google Benchmark: bench-micro [CAPTURE] [--benchmark_...]
#include <cstdlib>
#include <ctime>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>
#include <pcap/pcap.h>

#include "millrace/decode.h"
#include "millrace/features.h"
#include "millrace/receipt.h"
#include "millrace/session_table.h"

#include "run/pipeline.h"
#include "run/queue.h"
#include "run/test_stages.h"

namespace millrace {
namespace {

using host::HostOptions;
using host::QueueOptions;
using host::testing::PlanBuilder;

/// Packets of a capture, and the bytes that they are views of.
struct Traffic {
  std::vector<std::vector<std::byte>> bytes;
  std::vector<Packet> packets;
};

Traffic load(const char* path) {
  char message[PCAP_ERRBUF_SIZE];
  const std::unique_ptr<pcap_t, void (*)(pcap_t*)> file(
      pcap_open_offline_with_tstamp_precision(path, PCAP_TSTAMP_PRECISION_NANO, message),
      &pcap_close);
  if (!file) {
    std::fprintf(stderr, "%s\n", message);
    std::exit(2);
  }
  Traffic traffic;
  pcap_pkthdr* head = nullptr;
  const u_char* data = nullptr;
  while (pcap_next_ex(file.get(), &head, &data) == 1) {
    const auto view = std::as_bytes(std::span(data, head->caplen));
    traffic.bytes.emplace_back(view.begin(), view.end());
    Packet packet;
    packet.data = traffic.bytes.back().data();
    packet.captured = head->caplen;
    packet.length = head->len;
    packet.time = Timestamp(std::chrono::seconds(head->ts.tv_sec) +
                            std::chrono::nanoseconds(head->ts.tv_usec));
    packet.link = static_cast<LinkType>(pcap_datalink(file.get()));
    packet.number = static_cast<std::uint32_t>(traffic.packets.size());
    traffic.packets.push_back(packet);
  }
  return traffic;
}

void decode_packets(benchmark::State& state, const Traffic& traffic) {
  for (auto _ : state) {
    for (const Packet& packet : traffic.packets) {
      Decoded decoded;
      benchmark::DoNotOptimize(decode(packet, decoded));
    }
  }
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(traffic.packets.size()));
}

void split_packets(benchmark::State& state, const Traffic& traffic) {
  constexpr std::size_t kBatch = 512;
  std::uint64_t sessions = 0;
  const SessionTable::Emit emit = [&](const Session&, std::uint64_t) { ++sessions; };
  for (auto _ : state) {
    SessionTable table{SessionLimits{}};
    const std::span<const Packet> all(traffic.packets);
    for (std::size_t i = 0; i < all.size(); i += kBatch) {
      table.add(all.subspan(i, std::min(kBatch, all.size() - i)), 0, emit);
    }
    table.flush(emit);
  }
  benchmark::DoNotOptimize(sessions);
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(traffic.packets.size()));
}

void make_features(benchmark::State& state, const Traffic& traffic) {
  SessionBatch collected;
  SessionTable table{SessionLimits{}};
  const SessionTable::Emit emit = [&](const Session& session, std::uint64_t) {
    collected.add(session);
  };
  table.add(traffic.packets, 0, emit);
  table.flush(emit);
  const Batch<Session> sessions = collected.take();
  const FeatureSpec spec;
  std::vector<std::uint8_t> row(spec.bytes);
  for (auto _ : state) {
    for (const Session& session : sessions.items) {
      benchmark::DoNotOptimize(extract_features(session, spec, row));
    }
  }
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(sessions.items.size()));
}

void resolve_receipts(benchmark::State& state) {
  std::uint64_t done = 0;
  for (auto _ : state) {
    Receipt receipt = Receipt::make([&done](Outcome) noexcept { ++done; });
    receipt.done();
  }
  benchmark::DoNotOptimize(done);
  state.SetItemsProcessed(state.iterations());
}

/// Gives `total` batches of one item each, moved on untouched by every stage behind it.
class Batches final : public Source<Number> {
 public:
  explicit Batches(std::int64_t total) : total_(total) {}
  void run(Output<Number>& out, std::stop_token /*stop*/) override {
    for (std::int64_t i = 0; i < total_; ++i) {
      Batch<Number> batch;
      batch.items.push_back({1});
      out.push(std::move(batch));
    }
  }

 private:
  std::int64_t total_;
};
class Forward final : public Transform<Number, Number> {
 public:
  void process(Batch<Number>& in, Output<Number>& out) override { out.push(std::move(in)); }
};
class Swallow final : public Sink<Number> {
 public:
  void write(Batch<Number>& in) override { benchmark::DoNotOptimize(in.items.data()); }
};

/// Of this process: what else the machine does is left out.
std::chrono::duration<double> cpu_time() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

/// Time of a run with so many stages between source and sink: CPU time if they are fused, with
/// queues, where threads work side by side, the clock's.
std::chrono::duration<double> run_chain(std::size_t stages, bool queues, std::int64_t batches) {
  HostOptions options;
  if (queues) options.queue = QueueOptions{.batches = 1024};
  PlanBuilder builder;
  builder.add("source", StageKind::source, {},
              [batches] { return std::make_unique<Batches>(batches); });
  for (std::size_t i = 0; i < stages; ++i) {
    builder.add(
        "stage" + std::to_string(i), StageKind::transform, {i},
        [] { return std::make_unique<Forward>(); }, options);
  }
  builder.add("sink", StageKind::sink, {stages}, [] { return std::make_unique<Swallow>(); });
  host::Logger logger(host::LogFormat::text, LogLevel::error);
  host::RunOptions run_options;
  run_options.summary = false;
  host::Pipeline pipeline(builder.plan(), run_options, logger);
  host::Report report;
  if (pipeline.open(report) != host::Exit::done) std::exit(1);
  const auto now = [queues]() -> std::chrono::duration<double> {
    return queues ? std::chrono::steady_clock::now().time_since_epoch() : cpu_time();
  };
  const auto begin = now();
  if (pipeline.run() != host::Exit::done) std::exit(1);
  return now() - begin;
}

/// What one more stage costs a batch: the difference of two runs.
void hop(benchmark::State& state, std::size_t stages, bool queues) {
  constexpr std::int64_t kBatches = 2000000;
  for (auto _ : state) {
    const auto without = run_chain(0, false, kBatches);
    const auto with = run_chain(stages, queues, kBatches);
    state.SetIterationTime((with - without).count() / static_cast<double>(stages) / kBatches);
  }
}

}  // namespace
}  // namespace millrace

int main(int count, char** values) {
  using namespace millrace;
  benchmark::Initialize(&count, values);
  const Traffic traffic = load(count > 1 ? values[1] : "samples/sample.pcap");
  benchmark::RegisterBenchmark("decode, a packet", [&](auto& s) { decode_packets(s, traffic); });
  benchmark::RegisterBenchmark("session table, a packet",
                               [&](auto& s) { split_packets(s, traffic); });
  benchmark::RegisterBenchmark("features, a session", [&](auto& s) { make_features(s, traffic); });
  benchmark::RegisterBenchmark("receipt", resolve_receipts);
  benchmark::RegisterBenchmark("fused hop, a batch", [](auto& s) { hop(s, 8, false); })
      ->UseManualTime()
      ->Iterations(5);
  benchmark::RegisterBenchmark("queue hop, a batch", [](auto& s) { hop(s, 1, true); })
      ->UseManualTime()
      ->Iterations(5);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
