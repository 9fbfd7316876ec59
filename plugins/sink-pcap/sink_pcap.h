#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "millrace/packet.h"
#include "millrace/stage.h"

namespace millrace {

struct PcapFileOptions {
  std::string path{};
};

/// Writes packets to a capture file: classic pcap with nanoseconds (draft-ietf-opsawg-pcap).
class SinkPcap final : public Sink<Packet> {
 public:
  explicit SinkPcap(const PcapFileOptions& options) : options_(options) {}
  ~SinkPcap() override;
  SinkPcap(const SinkPcap&) = delete;
  SinkPcap& operator=(const SinkPcap&) = delete;

  void open(Context& context) override;
  void write(Batch<Packet>& in) override;
  void flush() override;

 private:
  void begin(LinkType link);
  void put(std::uint32_t value);
  void write_out();

  PcapFileOptions options_;
  int fd_ = -1;
  std::optional<LinkType> link_;
  std::string buffer_;
  std::size_t written_ = 0;
  std::vector<Receipt> receipts_;  ///< of the batches in the buffer
};

}  // namespace millrace
