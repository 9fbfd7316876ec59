#pragma once

#include <memory>
#include <stop_token>
#include <string>

#include "millrace/context.h"

#include "capture_reader.h"

struct pcap;

namespace millrace {

struct LiveOptions {
  std::string interface;
  std::string filter;
  std::uint32_t snaplen = 262144;
  bool promiscuous = true;
  bool immediate = false;
  ByteSize buffer = 16_MiB;
  Duration read_timeout = std::chrono::milliseconds(100);
};

/// A network interface opened for capture through libpcap.
class LiveCapture {
 public:
  /// Throws ConfigError on "interface" or "filter".
  explicit LiveCapture(const LiveOptions& options);

  /// Until `stop`, the gate or `until` (steady time; null: none) ends it. Throws std::runtime_error
  /// if the interface goes away.
  void run(Output<Packet>& out, PacketBatcher& batcher, Gate& gate, Duration duration,
           Context& context, const std::stop_token& stop);

 private:
  struct Close {
    void operator()(pcap* handle) const;
  };
  void count_drops(Context& context);

  LiveOptions options_;
  std::unique_ptr<pcap, Close> handle_;
  std::uint32_t dropped_ = 0;
  std::uint32_t if_dropped_ = 0;
};

}  // namespace millrace
