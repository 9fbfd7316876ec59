#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "capture_reader.h"

namespace millrace {

namespace {

constexpr std::uint32_t kSection = 0x0A0D0D0A;
constexpr std::uint32_t kInterface = 1;
constexpr std::uint32_t kObsoletePacket = 2;
constexpr std::uint32_t kSimplePacket = 3;
constexpr std::uint32_t kPacket = 6;

constexpr std::size_t kBlockHead = 8;    ///< type and length
constexpr std::size_t kBlockFrame = 12;  ///< with the length at the end
/// libpcap's and Wireshark's bound for a block.
constexpr std::uint32_t kMostBlock = 16U << 20U;

constexpr std::int64_t kMostSeconds = 9000000000;  // the year 2255; nanoseconds overflow beyond it

__extension__ using Wide = __int128;

/// One interface of a section (draft-ietf-opsawg-pcapng section 4.2).
struct Interface {
  LinkType link{};
  std::uint32_t snaplen = 0;  ///< 0: no limit
  /// One unit of time is `nanoseconds` if that is not 0, else 2^-binary or 10^-decimal seconds.
  std::uint32_t nanoseconds = 1000;
  std::uint8_t resolution = 6;
  std::int64_t offset = 0;  ///< seconds

  void set_resolution(std::uint8_t value) {
    resolution = value;
    nanoseconds = 0;
    if (value > 9) return;
    nanoseconds = 1;
    for (int digit = value; digit < 9; ++digit) nanoseconds *= 10;
  }

  [[nodiscard]] Timestamp time(std::uint64_t units) const {
    Wide since{};
    if (nanoseconds != 0) {
      since = Wide{units} * nanoseconds;
    } else if ((resolution & 0x80U) != 0) {
      since = (Wide{units} * 1000000000) >> (resolution & 0x7FU);
    } else {
      for (int digit = 9; digit < resolution && units != 0; ++digit) units /= 10;
      since = units;
    }
    since += Wide{offset} * 1000000000;
    since = std::clamp<Wide>(since, 0, Wide{kMostSeconds} * 1000000000);
    return Timestamp(Duration(static_cast<std::int64_t>(since)));
  }
};

/// The format of Wireshark: sections in either byte order, interfaces each with a link type of its
/// own, blocks of which those that hold no packets are passed over. Read straight into the batch's
/// buffer.
class PcapngReader final : public CaptureReader {
 public:
  PcapngReader(std::string name, std::uint32_t snaplen, std::unique_ptr<ByteSource> bytes)
      : name_(std::move(name)), snaplen_(snaplen), bytes_(std::move(bytes)) {}

  [[nodiscard]] std::optional<std::uint64_t> cut_off_at() const override { return cut_off_; }
  [[nodiscard]] std::optional<std::uint64_t> zeros_from() const override { return zeros_; }
  [[nodiscard]] std::uint64_t raw_position() const override { return bytes_->raw_position(); }
  [[nodiscard]] std::unique_ptr<ByteSource> next_capture() override {
    if (!another_) return nullptr;
    return with_head(rest_, std::move(bytes_));
  }
  [[nodiscard]] std::uint64_t offset() const override { return offset_; }

  Step step(Output<Packet>& out, PacketBatcher& batcher, Gate& gate) override {
    auto buffer = batcher.pool().take(std::max(batcher.batch_bytes(), wanted_));
    std::copy(rest_.begin(), rest_.end(), buffer->bytes.begin());
    std::size_t filled = rest_.size();
    const std::size_t got = bytes_->read(std::span(buffer->bytes).subspan(filled));
    filled += got;
    std::vector<Packet> packets;
    packets.reserve(batcher.batch_packets());
    std::span<const std::byte> block = std::span(buffer->bytes).first(filled);
    Step step = Step::more;
    try {
      step = take(block, packets, buffer, out, batcher, gate);
    } catch (...) {
      batcher.push_views(out, std::move(packets), buffer);
      throw;
    }
    rest_.assign(block.begin(), block.end());
    batcher.push_views(out, std::move(packets), buffer);
    if (step != Step::more || got != 0) return step;
    if (blocks_ == 0) throw std::runtime_error(name_ + ": cut off within its first block");
    if (!rest_.empty() || skip_ != 0 || bytes_->cut_off())
      cut_off_ = skip_ != 0 ? skipped_ : offset_;
    return Step::ended;
  }

 private:
  [[nodiscard]] std::uint32_t u32(const std::byte* at) const {
    std::uint32_t value = 0;
    std::memcpy(&value, at, sizeof value);
    return swapped_ ? __builtin_bswap32(value) : value;
  }
  [[nodiscard]] std::uint16_t u16(const std::byte* at) const {
    std::uint16_t value = 0;
    std::memcpy(&value, at, sizeof value);
    return swapped_ ? __builtin_bswap16(value) : value;
  }

  [[noreturn]] void damaged(const std::string& what) const {
    throw std::runtime_error(
        fmt::format("{}: damaged at byte {}, block {}: {}", name_, offset_, blocks_ + 1, what));
  }

  void advance(std::span<const std::byte>& left, std::size_t size) {
    left = left.subspan(size);
    offset_ += size;
  }

  /// Takes whole blocks off `left`.
  Step take(std::span<const std::byte>& left, std::vector<Packet>& packets,
            const std::shared_ptr<BufferPool::Buffer>& buffer, Output<Packet>& out,
            PacketBatcher& batcher, Gate& gate) {
    wanted_ = 0;
    while (true) {
      if (skip_ != 0) {
        const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(skip_, left.size()));
        advance(left, size);
        skip_ -= size;
        if (skip_ != 0) return Step::more;
      }
      if (zeros_) {
        check_zeros(left);
        return Step::more;
      }
      if (left.size() < kBlockFrame) return Step::more;
      const std::byte* head = left.data();
      std::uint32_t type = u32(head);
      if (type != kSection && blocks_ != 0) {
        if (begins_capture(left)) {
          another_ = true;
          return Step::ended;
        }
        if (type == 0 && u32(head + 4) == 0) {
          zeros_ = offset_;
          continue;
        }
      }
      if (type == kSection) set_order(head + 8);
      const std::uint32_t length = u32(head + 4);
      if (length < kBlockFrame || length % 4 != 0 || length > kMostBlock) {
        damaged(
            fmt::format("it claims a length of {} bytes; expected a multiple of 4 from {} to {}",
                        length, kBlockFrame, kMostBlock));
      }
      const bool read = type == kSection || type == kInterface || type == kObsoletePacket ||
                        type == kSimplePacket || type == kPacket;
      if (!read) {
        skip_ = length;
        skipped_ = offset_;
        ++blocks_;
        continue;
      }
      if (left.size() < length) {
        wanted_ = length;
        return Step::more;
      }
      if (u32(head + length - 4) != length) {
        damaged(fmt::format("its length is {} at the beginning and {} at the end", length,
                            u32(head + length - 4)));
      }
      const auto body = left.subspan(kBlockHead, length - kBlockFrame);
      if (type == kSection) {
        begin_section(body);
      } else if (type == kInterface) {
        add_interface(body);
      } else {
        const Packet packet = type == kPacket         ? enhanced(body)
                              : type == kSimplePacket ? simple(body)
                                                      : obsolete(body);
        const Gate::Answer answer = gate.admit(packet);
        if (answer == Gate::Answer::stop) return Step::satisfied;
        if (answer == Gate::Answer::take) {
          packets.push_back(packet);
          if (packets.size() == batcher.batch_packets()) {
            batcher.push_views(out, std::exchange(packets, {}), buffer);
            packets.reserve(batcher.batch_packets());
          }
        }
      }
      ++blocks_;
      advance(left, length);
    }
  }

  void check_zeros(std::span<const std::byte>& left) {
    const auto other = std::ranges::find_if(left, [](std::byte b) { return b != std::byte{0}; });
    advance(left, static_cast<std::size_t>(other - left.begin()));
    if (!left.empty())
      damaged(fmt::format("zeros from byte {} on, and no block behind them", *zeros_));
  }

  void set_order(const std::byte* magic) {
    constexpr std::uint32_t kOrder = 0x1A2B3C4D;
    std::uint32_t order = 0;
    std::memcpy(&order, magic, sizeof order);
    if (order != kOrder && order != __builtin_bswap32(kOrder)) {
      damaged(
          fmt::format("a section with the byte-order mark {:08x}; expected {:08x}", order, kOrder));
    }
    swapped_ = order != kOrder;
  }

  void begin_section(std::span<const std::byte> body) {
    constexpr std::size_t kLeast = 16;
    if (body.size() < kLeast) damaged("a section header that is too short");
    if (const std::uint16_t major = u16(body.data() + 4); major != 1) {
      damaged(fmt::format("a section of version {}.{}; expected 1", major, u16(body.data() + 6)));
    }
    interfaces_.clear();
  }

  void add_interface(std::span<const std::byte> body) {
    constexpr std::size_t kFixed = 8;
    if (body.size() < kFixed) damaged("an interface description that is too short");
    Interface made;
    made.link = link_of(u16(body.data()));
    made.snaplen = u32(body.data() + 4);
    constexpr std::uint16_t kEnd = 0;
    constexpr std::uint16_t kResolution = 9;
    constexpr std::uint16_t kOffset = 14;
    auto options = body.subspan(kFixed);
    while (options.size() >= 4) {
      const std::uint16_t code = u16(options.data());
      const std::size_t size = u16(options.data() + 2);
      options = options.subspan(4);
      if (code == kEnd) break;
      if (size > options.size()) damaged("an option that reaches beyond its block");
      if (code == kResolution && size == 1) {
        made.set_resolution(std::to_integer<std::uint8_t>(options[0]));
      } else if (code == kOffset && size == 8) {
        std::uint64_t offset = 0;
        std::memcpy(&offset, options.data(), sizeof offset);
        made.offset = static_cast<std::int64_t>(swapped_ ? __builtin_bswap64(offset) : offset);
      }
      options = options.subspan(std::min(options.size(), (size + 3) / 4 * 4));
    }
    interfaces_.push_back(made);
  }

  [[nodiscard]] const Interface& interface(std::size_t number) const {
    if (number >= interfaces_.size()) {
      damaged(fmt::format("a packet of interface {}, but its section has described {} so far",
                          number, interfaces_.size()));
    }
    return interfaces_[number];
  }

  [[nodiscard]] Packet packet(const Interface& from, std::span<const std::byte> data,
                              std::uint32_t captured, std::uint32_t length) const {
    if (captured > data.size() || captured > kMostCaptured) {
      damaged(
          fmt::format("a packet that claims {} captured bytes; {} are in its block, and at most {} "
                      "are possible",
                      captured, data.size(), kMostCaptured));
    }
    Packet made;
    made.data = data.data();
    made.captured = std::min(captured, snaplen_);
    made.length = length;
    made.link = from.link;
    made.time = last_;
    return made;
  }

  [[nodiscard]] Timestamp time(const Interface& from, const std::byte* at) {
    last_ = from.time(std::uint64_t{u32(at)} << 32U | u32(at + 4));
    return last_;
  }

  Packet enhanced(std::span<const std::byte> body) {
    constexpr std::size_t kFixed = 20;
    if (body.size() < kFixed) damaged("a packet block that is too short");
    const std::byte* at = body.data();
    const Interface& from = interface(u32(at));
    Packet made = packet(from, body.subspan(kFixed), u32(at + 12), u32(at + 16));
    made.time = time(from, at + 4);
    return made;
  }

  Packet obsolete(std::span<const std::byte> body) {
    constexpr std::size_t kFixed = 20;
    if (body.size() < kFixed) damaged("a packet block that is too short");
    const std::byte* at = body.data();
    const Interface& from = interface(u16(at));
    Packet made = packet(from, body.subspan(kFixed), u32(at + 12), u32(at + 16));
    made.time = time(from, at + 4);
    return made;
  }

  /// Has no time of its own: that of the packet before.
  Packet simple(std::span<const std::byte> body) {
    constexpr std::size_t kFixed = 4;
    if (body.size() < kFixed) damaged("a packet block that is too short");
    const Interface& from = interface(0);
    const std::uint32_t length = u32(body.data());
    const auto data = body.subspan(kFixed);
    std::uint32_t captured = from.snaplen != 0 ? std::min(length, from.snaplen) : length;
    captured = std::min(captured, static_cast<std::uint32_t>(data.size()));
    return packet(from, data, captured, length);
  }

  std::string name_;
  std::uint32_t snaplen_;
  std::unique_ptr<ByteSource> bytes_;
  std::vector<std::byte> rest_;  ///< the beginning of a block whose end is not read yet
  std::size_t wanted_ = 0;       ///< the size of that block, if its head is there
  std::uint64_t skip_ = 0;       ///< what is left of a block that is passed over
  std::uint64_t skipped_ = 0;    ///< where that block begins
  std::uint64_t offset_ = 0;
  std::uint64_t blocks_ = 0;
  bool swapped_ = false;
  std::vector<Interface> interfaces_;  ///< of this section
  Timestamp last_{};
  bool another_ = false;
  std::optional<std::uint64_t> zeros_;
  std::optional<std::uint64_t> cut_off_;
};

}  // namespace

std::unique_ptr<CaptureReader> pcapng_reader(std::string name, std::uint32_t snaplen,
                                             std::unique_ptr<ByteSource> bytes) {
  return std::make_unique<PcapngReader>(std::move(name), snaplen, std::move(bytes));
}

}  // namespace millrace
