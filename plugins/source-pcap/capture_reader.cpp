#include "capture_reader.h"

#include <cstring>
#include <stdexcept>

#include <fmt/format.h>

namespace millrace {

namespace {

constexpr std::size_t kClassicHead = 24;

/// The reader of what begins here.
std::unique_ptr<CaptureReader> choose(const std::string& name, std::uint32_t snaplen,
                                      std::unique_ptr<ByteSource> bytes) {
  std::vector<std::byte> head(512);
  head.resize(read_fully(*bytes, std::span(head).first(kClassicHead)));
  const bool capture = begins_capture(head);
  if (!capture) {
    const std::size_t size = head.size();
    head.resize(512);
    head.resize(size + read_fully(*bytes, std::span(head).subspan(size)));
    if (const std::string other = foreign_format(head); !other.empty()) {
      throw std::runtime_error(fmt::format("{} {}", name, other));
    }
  }
  bytes = with_head(head, std::move(bytes));
  std::uint32_t type = 0;
  if (head.size() >= sizeof type) std::memcpy(&type, head.data(), sizeof type);
  constexpr std::uint32_t kSection = 0x0A0D0D0A;
  if (capture && type == kSection) return pcapng_reader(name, snaplen, std::move(bytes));
  if (auto classic = classic_reader(name, snaplen, bytes)) return classic;
  return libpcap_reader(name, snaplen, std::move(bytes));
}

/// Captures that follow one another in one file.
class ChainReader final : public CaptureReader {
 public:
  ChainReader(std::string name, std::uint32_t snaplen, std::unique_ptr<CaptureReader> first)
      : name_(std::move(name)), snaplen_(snaplen), reader_(std::move(first)) {}

  Step step(Output<Packet>& out, PacketBatcher& batcher, Gate& gate) override {
    const Step step = reader_->step(out, batcher, gate);
    if (step != Step::ended) return step;
    std::unique_ptr<ByteSource> rest = reader_->next_capture();
    if (!rest) return step;
    begin_ += reader_->offset();
    std::vector<std::byte> head(kClassicHead);
    head.resize(read_fully(*rest, head));
    if (head.size() < kClassicHead) {
      cut_off_ = begin_;
      raw_ = rest->raw_position();
      return step;
    }
    reader_ = choose(fmt::format("{}, in the capture that begins at byte {}", name_, begin_),
                     snaplen_, with_head(head, std::move(rest)));
    return Step::more;
  }
  [[nodiscard]] std::optional<LinkType> link_type() const override { return reader_->link_type(); }
  [[nodiscard]] std::optional<std::uint64_t> cut_off_at() const override {
    if (cut_off_) return cut_off_;
    const auto offset = reader_->cut_off_at();
    return offset ? std::optional(begin_ + *offset) : std::nullopt;
  }
  [[nodiscard]] std::optional<std::uint64_t> zeros_from() const override {
    const auto offset = reader_->zeros_from();
    return offset ? std::optional(begin_ + *offset) : std::nullopt;
  }
  [[nodiscard]] std::uint64_t raw_position() const override {
    return raw_ != 0 ? raw_ : reader_->raw_position();
  }

 private:
  std::string name_;
  std::uint32_t snaplen_;
  std::unique_ptr<CaptureReader> reader_;
  std::uint64_t begin_ = 0;  ///< of the capture that is being read
  std::uint64_t raw_ = 0;    ///< when the reader has given its bytes away
  std::optional<std::uint64_t> cut_off_;
};

}  // namespace

bool begins_capture(std::span<const std::byte> bytes) {
  if (bytes.size() < 12) return false;
  std::uint32_t word[3];
  std::memcpy(word, bytes.data(), sizeof word);
  switch (word[0]) {
    case 0xA1B2C3D4:
    case 0xA1B23C4D:
      return word[1] == 0x00040002;
    case 0xD4C3B2A1:
    case 0x4D3CB2A1:
      return word[1] == 0x04000200;
    case 0x0A0D0D0A:
      return word[2] == 0x1A2B3C4D || word[2] == 0x4D3C2B1A;
    default:
      return false;
  }
}

std::unique_ptr<CaptureReader> read_capture(const std::string& name, std::uint32_t snaplen,
                                            std::unique_ptr<ByteSource> bytes) {
  std::byte first{};
  if (read_fully(*bytes, std::span(&first, 1)) == 0) return nullptr;
  bytes = with_head(std::span(&first, 1), std::move(bytes));
  return std::make_unique<ChainReader>(name, snaplen, choose(name, snaplen, std::move(bytes)));
}

std::string no_capture(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::file_size(path, error) == 0) return {};
  try {
    const auto reader = open_capture(path, kMostCaptured, {});
  } catch (const std::system_error&) {
    throw;
  } catch (const std::runtime_error& failure) {
    return failure.what();
  }
  return {};
}

std::unique_ptr<CaptureReader> open_capture(const std::filesystem::path& path,
                                            std::uint32_t snaplen, const std::stop_token& stop) {
  const std::string name = path == "-" ? "standard input" : path.string();
  return read_capture(name, snaplen, open_bytes(path, stop));
}

}  // namespace millrace
