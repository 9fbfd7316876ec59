// The floor of inference: loads models with their cards, makes the rows of a capture's sessions
// once, and then does nothing but ask each model about them in batches, with one thread.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <pcap/pcap.h>
#include <sys/resource.h>

#include "millrace/features.h"
#include "millrace/session_table.h"

#include "backend.h"
#include "card.h"

namespace millrace {
namespace {

struct Rows {
  std::vector<std::uint8_t> bytes;
  std::size_t count = 0;
};

/// What split-memory and model-torch make of the capture with their defaults.
Rows rows_of(const char* capture, const FeatureSpec& spec) {
  char message[PCAP_ERRBUF_SIZE];
  const std::unique_ptr<pcap_t, void (*)(pcap_t*)> file(pcap_open_offline(capture, message),
                                                        &pcap_close);
  if (file == nullptr) throw std::runtime_error(message);
  SessionLimits limits;
  limits.layer = spec.layer;
  SessionTable table(limits);
  Rows rows;
  const auto emit = [&](const Session& session, std::uint64_t) {
    rows.bytes.resize((rows.count + 1) * spec.bytes);
    if (extract_features(session, spec, std::span(rows.bytes).last(spec.bytes)) > 0) ++rows.count;
  };
  pcap_pkthdr* header = nullptr;
  const u_char* data = nullptr;
  Timestamp newest{};
  while (pcap_next_ex(file.get(), &header, &data) == 1) {
    Packet packet;
    packet.time = Timestamp(std::chrono::seconds(header->ts.tv_sec) +
                            std::chrono::microseconds(header->ts.tv_usec));
    packet.data = reinterpret_cast<const std::byte*>(data);
    packet.captured = header->caplen;
    packet.length = header->len;
    packet.link = static_cast<LinkType>(pcap_datalink(file.get()));
    table.add({&packet, 1}, 0, emit);
    newest = std::max(newest, packet.time);
    table.advance(newest, emit);
  }
  table.flush(emit);
  return rows;
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

struct Candidate {
  std::string file;
  Card card;
  std::shared_ptr<Model> model;
  Rows rows;
  double best = std::numeric_limits<double>::max();  ///< CPU seconds for all rows
  double best_wall = std::numeric_limits<double>::max();
};

/// Every row once, the last batch filled up with zeros as the plugin does.
void ask(Candidate& candidate, std::size_t batch, std::vector<float>& logits) {
  const std::size_t size = candidate.card.features.bytes;
  const std::size_t rows = candidate.rows.bytes.size() / size;
  for (std::size_t at = 0; at < rows; at += batch) {
    (void)candidate.model->run(std::span(candidate.rows.bytes).subspan(at * size, batch * size),
                               batch, logits);
  }
}

int run(int count, char** arguments) {
  if (count < 5) {
    std::fprintf(
        stderr,
        "usage: bench-model CAPTURE BATCH ROUNDS MODEL.pt...\n"
        "Prints for each model: file, sessions with payload, sessions per CPU second, sessions "
        "per second.\n");
    return 2;
  }
  const std::size_t batch = std::strtoul(arguments[2], nullptr, 10);
  const int rounds = std::atoi(arguments[3]);
  if (batch == 0 || rounds < 1) throw std::runtime_error("BATCH and ROUNDS are at least 1");
  (void)torch_backend().use_threads(1);
  std::vector<Candidate> candidates;
  std::vector<float> logits;
  for (int i = 4; i < count; ++i) {
    const std::filesystem::path file = arguments[i];
    Candidate candidate{file.string(),
                        read_card(std::filesystem::path(file).replace_extension(".toml")),
                        nullptr,
                        {}};
    candidate.model = torch_backend().load(file, candidate.card.tensor);
    candidate.rows = rows_of(arguments[1], candidate.card.features);
    if (candidate.rows.count == 0) throw std::runtime_error("no session with a payload");
    const std::size_t whole = (candidate.rows.count + batch - 1) / batch * batch;
    candidate.rows.bytes.resize(candidate.rows.count * candidate.card.features.bytes);
    candidate.rows.bytes.resize(whole * candidate.card.features.bytes);
    candidates.push_back(std::move(candidate));
  }
  // The first round warms up.
  for (int round = 0; round <= rounds; ++round) {
    for (Candidate& candidate : candidates) {
      const double before = cpu_seconds();
      const auto begin = std::chrono::steady_clock::now();
      ask(candidate, batch, logits);
      if (round == 0) continue;
      candidate.best = std::min(candidate.best, cpu_seconds() - before);
      candidate.best_wall =
          std::min(candidate.best_wall,
                   std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
  }
  for (const Candidate& candidate : candidates) {
    const auto sessions = static_cast<double>(candidate.rows.count);
    std::printf("%s\t%zu\t%.0f\t%.0f\n", candidate.file.c_str(), candidate.rows.count,
                sessions / candidate.best, sessions / candidate.best_wall);
  }
  return 0;
}

}  // namespace
}  // namespace millrace

int main(int count, char** arguments) {
  try {
    return millrace::run(count, arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench-model: %s\n", error.what());
    return 1;
  }
}
