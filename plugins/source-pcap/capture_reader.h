#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>

#include "millrace/decode.h"
#include "millrace/packet.h"
#include "millrace/packet_clock.h"

#include "byte_source.h"
#include "packet_batcher.h"

struct bpf_program;

namespace millrace {

/// A compiled BPF filter (pcap-filter(7)).
class Filter {
 public:
  /// Throws std::runtime_error with libpcap's message.
  Filter(const std::string& expression, int link_type, std::uint32_t snaplen);

  [[nodiscard]] bool matches(const Packet& packet) const noexcept;
  [[nodiscard]] bpf_program& program() noexcept { return *program_; }

 private:
  struct Free {
    void operator()(bpf_program* program) const;
  };
  std::unique_ptr<bpf_program, Free> program_;
};

/// Filters for packets of any link type: one is compiled for each that comes.
class Filters {
 public:
  Filters(std::string expression, std::uint32_t snaplen)
      : expression_(std::move(expression)), snaplen_(snaplen) {}

  /// Throws ConfigError if the expression does not fit the link type.
  [[nodiscard]] bool matches(const Packet& packet) {
    if (current_ == nullptr || packet.link != link_) select(packet.link);
    return current_->matches(packet);
  }
  void select(LinkType link);

 private:
  std::string expression_;
  std::uint32_t snaplen_;
  std::map<LinkType, Filter> compiled_;
  LinkType link_{};
  Filter* current_ = nullptr;
};

/// What the packets of a capture are, as far as it takes to know that sessions can come of them.
class Census {
 public:
  void note(const Packet& packet) {
    ++packets_;
    const auto link = static_cast<std::size_t>(packet.link);
    if (link < proven_.size() && proven_[link]) return;
    look(packet);
  }
  [[nodiscard]] std::uint64_t packets() const { return packets_; }
  /// Whether one of TCP or UDP was among them.
  [[nodiscard]] bool found() const { return found_; }
  [[nodiscard]] std::uint64_t of_unknown_link() const {
    return kinds_[static_cast<std::size_t>(Decode::link_type)];
  }
  /// "link type IEEE802_11 (105)", with numbers of packets if there are several.
  [[nodiscard]] std::string unknown_links() const;
  /// Why nothing was found: "not-ip 5, truncated 2".
  [[nodiscard]] std::string reasons() const;

 private:
  void look(const Packet& packet);

  std::uint64_t packets_ = 0;
  bool found_ = false;
  std::array<bool, 512> proven_{};
  std::map<LinkType, std::uint64_t> unknown_;
  std::array<std::uint64_t, kDecodeKinds> kinds_{};
};

/// "IEEE802_11 (105)"
[[nodiscard]] std::string link_name(LinkType link);
/// libpcap's number (DLT_*) for one that files use (LINKTYPE_*).
[[nodiscard]] LinkType link_of(std::uint16_t number);

/// Decides which packets are given on, over all files of a run.
class Gate {
 public:
  enum class Answer : std::uint8_t { take, skip, stop };

  Gate(std::uint64_t count, Duration duration) : count_(count), duration_(duration) {}

  void set_filters(Filters filters) { filters_ = std::move(filters); }

  /// Throws ConfigError if the filter does not fit the packet's link type.
  Answer admit(const Packet& packet) {
    if (filters_ && !filters_->matches(packet)) {
      ++filtered_;
      return Answer::skip;
    }
    if (duration_.count() != 0) {
      clock_.see(packet.time);
      if (clock_.elapsed() >= duration_) return Answer::stop;
      // One that is too late by itself may only have a wrong time.
      if (between(clock_.now(), packet.time) >= duration_ - clock_.elapsed()) return Answer::skip;
    }
    if (count_ != 0 && taken_ == count_) return Answer::stop;
    ++taken_;
    census_.note(packet);
    return Answer::take;
  }
  /// Enough packets were taken; nothing more needs to be read.
  [[nodiscard]] bool satisfied() const { return count_ != 0 && taken_ == count_; }
  [[nodiscard]] std::uint64_t filtered() const { return filtered_; }
  [[nodiscard]] std::uint64_t taken() const { return taken_; }

  /// Throws ConfigError if the filter does not fit this link type.
  void prepare(LinkType link) {
    if (filters_) filters_->select(link);
  }

  /// Of the packets taken since `begin_census`.
  [[nodiscard]] const Census& census() const { return census_; }
  void begin_census() { census_ = {}; }

 private:
  std::uint64_t count_;
  Duration duration_;
  std::optional<Filters> filters_;
  PacketClock clock_;
  std::uint64_t taken_ = 0;
  std::uint64_t filtered_ = 0;
  Census census_;
};

/// libpcap's bound for what a record may hold (MAXIMUM_SNAPLEN).
inline constexpr std::uint32_t kMostCaptured = 262144;

/// Whether a capture file begins here: pcap or pcapng. No record and no block begins like this.
/// Needs 12 bytes.
[[nodiscard]] bool begins_capture(std::span<const std::byte> bytes);

/// Reads the packets of one capture file.
class CaptureReader {
 public:
  enum class Step : std::uint8_t { more, ended, satisfied };

  CaptureReader() = default;
  CaptureReader(const CaptureReader&) = delete;
  CaptureReader& operator=(const CaptureReader&) = delete;
  virtual ~CaptureReader() = default;

  /// If the file's header names one for all packets.
  [[nodiscard]] virtual std::optional<LinkType> link_type() const { return std::nullopt; }
  /// Reads and pushes about one batch. Packets before an error are pushed before it is thrown
  /// (std::runtime_error naming file, offset and record). `satisfied`: the gate wants no more.
  virtual Step step(Output<Packet>& out, PacketBatcher& batcher, Gate& gate) = 0;
  /// Where the file breaks off inside a record: its offset in the unpacked data.
  [[nodiscard]] virtual std::optional<std::uint64_t> cut_off_at() const = 0;
  [[nodiscard]] virtual std::uint64_t raw_position() const = 0;
  /// Where the zeros begin that pad the file to its end.
  [[nodiscard]] virtual std::optional<std::uint64_t> zeros_from() const { return std::nullopt; }
  /// After the end: another capture that begins where this one ended, as `cat a b` makes; null:
  /// none.
  [[nodiscard]] virtual std::unique_ptr<ByteSource> next_capture() { return nullptr; }
  /// Of the unpacked data, how much has been read as records or blocks.
  [[nodiscard]] virtual std::uint64_t offset() const { return 0; }
};

/// Chooses the reader by the file's first bytes. `snaplen` cuts packets. Captures that follow one
/// another in one file are read one after the other. Throws std::runtime_error if the file is no
/// capture, std::system_error if it cannot be opened; null if it is empty.
[[nodiscard]] std::unique_ptr<CaptureReader> open_capture(const std::filesystem::path& path,
                                                          std::uint32_t snaplen,
                                                          const std::stop_token& stop);

/// Why the file is no capture that can be read, as its first bytes tell: "x is compressed with xz;
/// unpack it first". Empty: it is one, or holds nothing. Throws as open_capture does.
[[nodiscard]] std::string no_capture(const std::filesystem::path& path);

/// The same as open_capture for a stream that has been opened; `name` is for messages.
[[nodiscard]] std::unique_ptr<CaptureReader> read_capture(const std::string& name,
                                                          std::uint32_t snaplen,
                                                          std::unique_ptr<ByteSource> bytes);

[[nodiscard]] std::unique_ptr<CaptureReader> pcapng_reader(std::string name, std::uint32_t snaplen,
                                                           std::unique_ptr<ByteSource> bytes);
/// The readers of pcap, for tests that compare them.
[[nodiscard]] std::unique_ptr<CaptureReader> libpcap_reader(std::string name, std::uint32_t snaplen,
                                                            std::unique_ptr<ByteSource> bytes);
/// Null if the header is not that of a plain classic capture; then `bytes` is left for libpcap.
[[nodiscard]] std::unique_ptr<CaptureReader> classic_reader(const std::string& name,
                                                            std::uint32_t snaplen,
                                                            std::unique_ptr<ByteSource>& bytes);

}  // namespace millrace
