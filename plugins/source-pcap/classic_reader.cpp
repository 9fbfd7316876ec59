#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <stdexcept>

#include <fmt/format.h>

#include "capture_reader.h"

namespace millrace {

namespace {

constexpr std::size_t kFileHeader = 24;
constexpr std::size_t kRecordHeader = 16;
/// The classic format (draft-ietf-opsawg-pcap), read straight into the batch's buffer.
class ClassicReader final : public CaptureReader {
 public:
  struct Header {
    bool swapped;
    std::uint32_t fraction;  ///< nanoseconds in one unit of the sub-second field
    LinkType link;
  };

  ClassicReader(std::string name, const Header& header, std::uint32_t snaplen,
                std::unique_ptr<ByteSource> bytes)
      : name_(std::move(name)), header_(header), snaplen_(snaplen), bytes_(std::move(bytes)) {}

  [[nodiscard]] std::optional<LinkType> link_type() const override { return header_.link; }
  [[nodiscard]] std::optional<std::uint64_t> cut_off_at() const override { return cut_off_; }
  [[nodiscard]] std::optional<std::uint64_t> zeros_from() const override { return zeros_; }
  [[nodiscard]] std::uint64_t raw_position() const override { return bytes_->raw_position(); }
  [[nodiscard]] std::uint64_t offset() const override { return offset_; }
  [[nodiscard]] std::unique_ptr<ByteSource> next_capture() override {
    if (!another_) return nullptr;
    return with_head(rest_, std::move(bytes_));
  }

  Step step(Output<Packet>& out, PacketBatcher& batcher, Gate& gate) override {
    // What is left of the block before begins the new buffer.
    auto buffer = batcher.pool().take(std::max(batcher.batch_bytes(), wanted_));
    std::copy(rest_.begin(), rest_.end(), buffer->bytes.begin());
    std::size_t filled = rest_.size();
    const std::size_t got = bytes_->read(std::span(buffer->bytes).subspan(filled));
    filled += got;
    const bool ended = got == 0;
    const Step step = take(std::span(buffer->bytes).first(filled), buffer, out, batcher, gate);
    if (step != Step::more) return step;
    if (!ended) return Step::more;
    if (!rest_.empty() || bytes_->cut_off()) cut_off_ = offset_;
    return Step::ended;
  }

 private:
  [[nodiscard]] std::uint32_t u32(const std::byte* at) const {
    std::uint32_t value = 0;
    std::memcpy(&value, at, sizeof value);
    return header_.swapped ? __builtin_bswap32(value) : value;
  }

  /// Gives on the whole records of `block`; keeps the rest.
  Step take(std::span<const std::byte> block, const std::shared_ptr<BufferPool::Buffer>& buffer,
            Output<Packet>& out, PacketBatcher& batcher, Gate& gate) {
    std::vector<Packet> packets;
    packets.reserve(batcher.batch_packets());
    std::size_t at = 0;
    Step step = Step::more;
    try {
      step = take_records(block, at, packets, buffer, out, batcher, gate);
    } catch (...) {
      batcher.push_views(out, std::move(packets), buffer);
      throw;
    }
    rest_.assign(block.begin() + static_cast<std::ptrdiff_t>(at), block.end());
    batcher.push_views(out, std::move(packets), buffer);
    return step;
  }

  /// `at` is where the first record begins that is not taken.
  Step take_records(std::span<const std::byte> block, std::size_t& at, std::vector<Packet>& packets,
                    const std::shared_ptr<BufferPool::Buffer>& buffer, Output<Packet>& out,
                    PacketBatcher& batcher, Gate& gate) {
    wanted_ = 0;
    while (true) {
      if (zeros_) {
        skip_zeros(block, at);
        return Step::more;
      }
      if (block.size() - at < kRecordHeader) return Step::more;
      const std::byte* record = block.data() + at;
      const std::uint32_t captured = u32(record + 8);
      if (captured == 0 && u32(record + 12) == 0 && u32(record) == 0 && u32(record + 4) == 0) {
        zeros_ = offset_;
        continue;
      }
      if (begins_capture(block.subspan(at))) {
        another_ = true;
        return Step::ended;
      }
      if (captured > kMostCaptured) {
        throw std::runtime_error(
            fmt::format("{}: damaged at byte {}: record {} claims {} captured bytes, more than the "
                        "most possible {}",
                        name_, offset_, records_ + 1, captured, kMostCaptured));
      }
      const std::size_t size = kRecordHeader + captured;
      if (block.size() - at < size) {
        wanted_ = size;
        return Step::more;
      }
      Packet packet;
      // A sub-second part of a second or more is damage; both readers stay below the next second.
      const std::int64_t fraction =
          std::min<std::int64_t>(std::int64_t{u32(record + 4)} * header_.fraction, 999999999);
      packet.time = Timestamp(Duration(std::int64_t{u32(record)} * 1000000000 + fraction));
      packet.data = record + kRecordHeader;
      packet.captured = std::min(captured, snaplen_);
      packet.length = u32(record + 12);
      packet.link = header_.link;
      const Gate::Answer answer = gate.admit(packet);
      if (answer == Gate::Answer::stop) return Step::satisfied;
      at += size;
      offset_ += size;
      ++records_;
      if (answer == Gate::Answer::take) {
        packets.push_back(packet);
        if (packets.size() == batcher.batch_packets()) {
          batcher.push_views(out, std::move(packets), buffer);
          packets = {};
          packets.reserve(batcher.batch_packets());
        }
      }
    }
  }

  void skip_zeros(std::span<const std::byte> block, std::size_t& at) {
    while (at < block.size()) {
      if (block[at] != std::byte{0}) {
        throw std::runtime_error(
            fmt::format("{}: damaged at byte {}: zeros from byte {} on, and no record behind them",
                        name_, offset_, *zeros_));
      }
      ++at;
      ++offset_;
    }
  }

  std::string name_;
  Header header_;
  std::uint32_t snaplen_;
  std::unique_ptr<ByteSource> bytes_;
  std::vector<std::byte> rest_;  ///< the beginning of a record whose end is not read yet
  std::size_t wanted_ = 0;       ///< the size of that record, if its header is there
  std::uint64_t offset_ = kFileHeader;
  std::uint64_t records_ = 0;
  bool another_ = false;
  std::optional<std::uint64_t> zeros_;
  std::optional<std::uint64_t> cut_off_;
};

}  // namespace

std::unique_ptr<CaptureReader> classic_reader(const std::string& name, std::uint32_t snaplen,
                                              std::unique_ptr<ByteSource>& bytes) {
  std::array<std::byte, kFileHeader> head{};
  const std::size_t size = read_fully(*bytes, head);
  const auto leave = [&]() -> std::unique_ptr<CaptureReader> {
    bytes = with_head(std::span(head).first(size), std::move(bytes));
    return nullptr;
  };
  if (size < head.size()) return leave();
  const auto word = [&](std::size_t at) {
    std::uint32_t value = 0;
    std::memcpy(&value, head.data() + at, sizeof value);
    return value;
  };
  static_assert(std::endian::native == std::endian::little, "magic numbers below");
  ClassicReader::Header header{};
  switch (word(0)) {
    case 0xA1B2C3D4:
      header = {false, 1000, {}};
      break;
    case 0xA1B23C4D:
      header = {false, 1, {}};
      break;
    case 0xD4C3B2A1:
      header = {true, 1000, {}};
      break;
    case 0x4D3CB2A1:
      header = {true, 1, {}};
      break;
    default:
      return leave();
  }
  const auto u32 = [&](std::size_t at) {
    return header.swapped ? __builtin_bswap32(word(at)) : word(at);
  };
  // Version 2.4 in two 16-bit fields.
  const std::uint32_t version = word(4);
  if (version != (header.swapped ? 0x04000200U : 0x00040002U)) return leave();
  // The upper bits tell of a frame check sequence. Link types that libpcap treats in a special way
  // (a larger bound, a pseudo-header to mend) are left to it.
  const std::uint32_t link = u32(20) & 0x03FFFFFFU;
  constexpr std::uint32_t kSpecial[] = {117, 189, 220, 227, 231, 239, 243, 245, 249, 253, 258, 279};
  if (link > 0xFFFF || std::ranges::find(kSpecial, link) != std::end(kSpecial)) return leave();
  header.link = link_of(static_cast<std::uint16_t>(link));
  return std::make_unique<ClassicReader>(name, header, snaplen, std::move(bytes));
}

}  // namespace millrace
