#include "sink_pcap.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "millrace/plugin.h"

namespace millrace {

SinkPcap::~SinkPcap() {
  if (fd_ >= 0) ::close(fd_);
}

void SinkPcap::open(Context& /*context*/) {
  constexpr mode_t kMode = 0644;
  fd_ = options_.path == "-"
            ? ::dup(STDOUT_FILENO)
            : ::open(options_.path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, kMode);
  if (fd_ < 0)
    throw ConfigError("path",
                      fmt::format("cannot write '{}': {}", options_.path, std::strerror(errno)));
}

void SinkPcap::put(std::uint32_t value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  buffer_.append(bytes, sizeof bytes);
}

void SinkPcap::begin(LinkType link) {
  link_ = link;
  put(0xA1B23C4D);
  put(2U | 4U << 16U);  // version 2.4
  put(0);
  put(0);
  put(262144);
  // In files raw IP has a number of its own.
  put(static_cast<std::uint32_t>(link == LinkType::raw_dlt ? LinkType::raw : link));
}

void SinkPcap::write(Batch<Packet>& in) {
  write_out();  // what an attempt before left
  std::vector<std::size_t> foreign;
  for (std::size_t i = 0; i < in.items.size(); ++i) {
    if (in.items[i].link != link_.value_or(in.items.front().link)) foreign.push_back(i);
  }
  if (!foreign.empty()) {
    const auto link = static_cast<unsigned>(in.items[foreign.front()].link);
    throw Rejected(
        fmt::format("a capture file has one link type, and these packets have another ({})", link),
        std::move(foreign));
  }
  if (!link_ && !in.items.empty()) begin(in.items.front().link);
  for (const Packet& packet : in.items) {
    const std::int64_t time = packet.time.time_since_epoch().count();
    constexpr std::int64_t kSecond = 1000000000;
    put(static_cast<std::uint32_t>(time / kSecond));
    put(static_cast<std::uint32_t>(time % kSecond));
    put(packet.captured);
    put(packet.length);
    buffer_.append(reinterpret_cast<const char*>(packet.data), packet.captured);
  }
  receipts_.push_back(std::move(in.receipt));
  // The batch is taken over: a disk that is full now is told of at the next call.
  try {
    write_out();
  } catch (const Transient&) {
    return;
  }
}

void SinkPcap::flush() {
  if (!link_) begin(LinkType::ethernet);  // a capture without packets is a capture too
  write_out();
}

void SinkPcap::write_out() {
  while (written_ < buffer_.size()) {
    const ssize_t done = ::write(fd_, buffer_.data() + written_, buffer_.size() - written_);
    if (done >= 0) {
      written_ += static_cast<std::size_t>(done);
    } else if (errno == ENOSPC || errno == EAGAIN || errno == EDQUOT) {
      throw Transient(fmt::format("cannot write '{}': {}", options_.path, std::strerror(errno)));
    } else if (errno != EINTR) {
      throw std::runtime_error(
          fmt::format("cannot write '{}': {}", options_.path, std::strerror(errno)));
    }
  }
  buffer_.clear();
  written_ = 0;
  for (Receipt& receipt : receipts_) receipt.done();
  receipts_.clear();
}

}  // namespace millrace

using namespace millrace;

MILLRACE_PLUGIN(
    "sink-pcap", MILLRACE_VERSION,
    sink<SinkPcap, PcapFileOptions>(
        "sink-pcap", "Writes packets to a capture file",
        option<&PcapFileOptions::path>("path",
                                       "the file, pcap with nanoseconds; replaced if it is "
                                       "there; \"-\" is standard output")
            .required())
        .single("writes one file in order"))
