#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <pcap/pcap.h>

#include "capture_reader.h"

namespace millrace {

namespace {

struct Close {
  void operator()(pcap_t* handle) const { pcap_close(handle); }
};

/// Any capture that libpcap can read: pcapng, modified and old kinds of pcap.
class LibpcapReader final : public CaptureReader {
 public:
  LibpcapReader(std::string name, std::uint32_t snaplen, std::unique_ptr<ByteSource> bytes)
      : name_(std::move(name)),
        snaplen_(snaplen),
        stream_{.bytes = std::move(bytes)},
        buffer_(std::size_t{64} * 1024) {
    cookie_io_functions_t functions{};
    functions.read = &Stream::read;
    functions.seek = &Stream::tell;
    file_ = ::fopencookie(&stream_, "rb", functions);
    if (file_ == nullptr) throw std::bad_alloc();
    // Without a buffer stdio would ask the stream for every single byte.
    std::setvbuf(file_, buffer_.data(), _IOFBF, buffer_.size());
    char message[PCAP_ERRBUF_SIZE] = {};
    handle_.reset(
        pcap_fopen_offline_with_tstamp_precision(file_, PCAP_TSTAMP_PRECISION_NANO, message));
    if (!handle_) {
      std::fclose(file_);
      stream_.rethrow();
      throw std::runtime_error(
          fmt::format("{}: not a capture file that can be read: {}", name_, message));
    }
  }

  [[nodiscard]] std::optional<LinkType> link_type() const override {
    return static_cast<LinkType>(pcap_datalink(handle_.get()));
  }
  [[nodiscard]] std::optional<std::uint64_t> cut_off_at() const override { return cut_off_; }
  [[nodiscard]] std::uint64_t raw_position() const override {
    return stream_.bytes->raw_position();
  }

  Step step(Output<Packet>& out, PacketBatcher& batcher, Gate& gate) override {
    for (std::size_t i = 0; i < batcher.batch_packets(); ++i) {
      const auto offset = static_cast<std::uint64_t>(::ftello(file_));
      pcap_pkthdr* header = nullptr;
      const u_char* data = nullptr;
      const int result = pcap_next_ex(handle_.get(), &header, &data);
      if (result == 1) {
        const Packet packet = view(*header, data);
        Gate::Answer answer{};
        try {
          answer = gate.admit(packet);
        } catch (...) {
          batcher.push(out);
          throw;
        }
        ++records_;
        if (answer == Gate::Answer::take) batcher.add(out, packet);
        if (answer != Gate::Answer::stop) continue;
        batcher.push(out);
        return Step::satisfied;
      }
      batcher.push(out);
      if (result == PCAP_ERROR_BREAK) {
        if (stream_.bytes->cut_off()) cut_off_ = offset;
        return Step::ended;
      }
      stream_.rethrow();
      const std::string message = pcap_geterr(handle_.get());
      if (message.starts_with("truncated")) {
        cut_off_ = offset;
        return Step::ended;
      }
      throw std::runtime_error(fmt::format("{}: damaged at byte {}, record {}: {}", name_, offset,
                                           records_ + 1, message));
    }
    batcher.push(out);
    return Step::more;
  }

 private:
  /// What libpcap reads from. An exception cannot pass through it and is kept.
  struct Stream {
    std::unique_ptr<ByteSource> bytes;
    std::exception_ptr error = nullptr;
    std::uint64_t position = 0;

    static ssize_t read(void* cookie, char* to, std::size_t size) {
      auto& stream = *static_cast<Stream*>(cookie);
      try {
        const std::size_t got = stream.bytes->read({reinterpret_cast<std::byte*>(to), size});
        stream.position += got;
        return static_cast<ssize_t>(got);
      } catch (...) {
        stream.error = std::current_exception();
        return -1;
      }
    }
    /// Only tells the position, from which stdio takes what its buffer still holds.
    static int tell(void* cookie, off64_t* offset, int whence) {
      if (whence != SEEK_CUR || *offset != 0) return -1;
      *offset = static_cast<off64_t>(static_cast<const Stream*>(cookie)->position);
      return 0;
    }
    void rethrow() const {
      if (error) std::rethrow_exception(error);
    }
  };

  [[nodiscard]] Packet view(const pcap_pkthdr& header, const u_char* data) const {
    std::int64_t seconds = header.ts.tv_sec;
    // libpcap takes the unsigned 32-bit seconds of classic files for signed ones.
    if (seconds < 0 && seconds >= INT32_MIN) seconds += std::int64_t{1} << 32U;
    constexpr std::int64_t kMostSeconds =
        9000000000;  // the year 2255; beyond it nanoseconds overflow
    seconds = std::clamp<std::int64_t>(seconds, 0, kMostSeconds);
    constexpr std::int64_t kMostFraction = 999999999;
    const std::int64_t fraction = header.ts.tv_usec < 0
                                      ? kMostFraction
                                      : std::min<std::int64_t>(header.ts.tv_usec, kMostFraction);
    Packet packet;
    packet.time = Timestamp(Duration(seconds * 1000000000 + fraction));
    packet.data = reinterpret_cast<const std::byte*>(data);
    packet.captured = std::min(header.caplen, snaplen_);
    packet.length = header.len;
    packet.link = static_cast<LinkType>(pcap_datalink(handle_.get()));
    return packet;
  }

  std::string name_;
  std::uint32_t snaplen_;
  Stream stream_;
  std::vector<char> buffer_;
  std::FILE* file_ = nullptr;  ///< reads from stream_ through buffer_; belongs to handle_
  std::unique_ptr<pcap_t, Close> handle_;
  std::uint64_t records_ = 0;
  std::optional<std::uint64_t> cut_off_;
};

}  // namespace

std::unique_ptr<CaptureReader> libpcap_reader(std::string name, std::uint32_t snaplen,
                                              std::unique_ptr<ByteSource> bytes) {
  // libpcap cuts packets to the length that the header names, though it may be less than was
  // captured; 0 means the most possible.
  std::array<std::byte, 24> head{};
  const std::size_t size = read_fully(*bytes, head);
  std::uint32_t magic = 0;
  std::memcpy(&magic, head.data(), sizeof magic);
  constexpr std::uint32_t kMagics[] = {0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34,
                                       0xD4C3B2A1, 0x4D3CB2A1, 0x34CDB2A1};
  if (size == head.size() && std::ranges::find(kMagics, magic) != std::end(kMagics)) {
    std::fill_n(head.begin() + 16, 4, std::byte{0});
  }
  return std::make_unique<LibpcapReader>(std::move(name), snaplen,
                                         with_head(std::span(head).first(size), std::move(bytes)));
}

}  // namespace millrace
