#include <algorithm>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string_view>

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
      : name_(std::move(name)), snaplen_(snaplen), stream_{std::move(bytes), {}, 0} {
    cookie_io_functions_t functions{};
    functions.read = &Stream::read;
    std::FILE* file = ::fopencookie(&stream_, "rb", functions);
    if (file == nullptr) throw std::bad_alloc();
    // Unbuffered, so that the stream's position is where libpcap is.
    std::setvbuf(file, nullptr, _IONBF, 0);
    char message[PCAP_ERRBUF_SIZE] = {};
    handle_.reset(
        pcap_fopen_offline_with_tstamp_precision(file, PCAP_TSTAMP_PRECISION_NANO, message));
    if (!handle_) {
      std::fclose(file);
      stream_.rethrow();
      throw std::runtime_error(
          fmt::format("{}: not a capture file that can be read: {}", name_, message));
    }
  }

  [[nodiscard]] int link_type() const override { return pcap_datalink(handle_.get()); }
  [[nodiscard]] std::optional<std::uint64_t> cut_off_at() const override { return cut_off_; }
  [[nodiscard]] std::uint64_t raw_position() const override {
    return stream_.bytes->raw_position();
  }

  Step step(Output<Packet>& out, PacketBatcher& batcher, Gate& gate) override {
    for (std::size_t i = 0; i < batcher.batch_packets(); ++i) {
      const std::uint64_t offset = stream_.position;
      pcap_pkthdr* header = nullptr;
      const u_char* data = nullptr;
      const int result = pcap_next_ex(handle_.get(), &header, &data);
      if (result == 1) {
        const Packet packet = view(*header, data);
        const Gate::Answer answer = gate.admit(packet);
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
    std::exception_ptr error;
    std::uint64_t position;

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
  std::unique_ptr<pcap_t, Close> handle_;
  std::uint64_t records_ = 0;
  std::optional<std::uint64_t> cut_off_;
};

/// Larger reads than libpcap's, with a position that is still exact.
class Buffered final : public ByteSource {
 public:
  explicit Buffered(std::unique_ptr<ByteSource> bytes) : bytes_(std::move(bytes)), block_(65536) {}
  std::size_t read(std::span<std::byte> to) override {
    if (at_ == size_) {
      size_ = bytes_->read(block_);
      at_ = 0;
    }
    const std::size_t size = std::min(to.size(), size_ - at_);
    std::memcpy(to.data(), block_.data() + at_, size);
    at_ += size;
    return size;
  }
  [[nodiscard]] std::uint64_t raw_position() const override { return bytes_->raw_position(); }
  [[nodiscard]] bool cut_off() const override { return bytes_->cut_off(); }

 private:
  std::unique_ptr<ByteSource> bytes_;
  std::vector<std::byte> block_;
  std::size_t at_ = 0;
  std::size_t size_ = 0;
};

}  // namespace

std::unique_ptr<CaptureReader> libpcap_reader(std::string name, std::uint32_t snaplen,
                                              std::unique_ptr<ByteSource> bytes) {
  return std::make_unique<LibpcapReader>(std::move(name), snaplen,
                                         std::make_unique<Buffered>(std::move(bytes)));
}

std::unique_ptr<CaptureReader> read_capture(const std::string& name, std::uint32_t snaplen,
                                            std::unique_ptr<ByteSource> bytes) {
  std::byte first{};
  if (read_fully(*bytes, std::span(&first, 1)) == 0) return nullptr;
  bytes = with_head(std::span(&first, 1), std::move(bytes));
  if (auto classic = classic_reader(name, snaplen, bytes)) return classic;
  return libpcap_reader(name, snaplen, std::move(bytes));
}

std::unique_ptr<CaptureReader> open_capture(const std::filesystem::path& path,
                                            std::uint32_t snaplen, const std::stop_token& stop) {
  const std::string name = path == "-" ? "standard input" : path.string();
  return read_capture(name, snaplen, open_bytes(path, stop));
}

}  // namespace millrace
