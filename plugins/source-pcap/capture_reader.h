#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "millrace/packet.h"

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

/// Decides which packets are given on, over all files of a run.
class Gate {
 public:
  enum class Answer : std::uint8_t { take, skip, stop };

  Gate(std::uint64_t count, Duration duration) : count_(count), duration_(duration) {}

  void set_filter(std::optional<Filter> filter) { filter_ = std::move(filter); }

  Answer admit(const Packet& packet) {
    if (filter_ && !filter_->matches(packet)) {
      ++filtered_;
      return Answer::skip;
    }
    if (duration_.count() != 0) {
      if (!first_) first_ = packet.time;
      if (packet.time - *first_ >= duration_) return Answer::stop;
    }
    if (count_ != 0 && taken_ == count_) return Answer::stop;
    ++taken_;
    return Answer::take;
  }
  /// Enough packets were taken; nothing more needs to be read.
  [[nodiscard]] bool satisfied() const { return count_ != 0 && taken_ == count_; }
  [[nodiscard]] std::uint64_t filtered() const { return filtered_; }

 private:
  std::uint64_t count_;
  Duration duration_;
  std::optional<Filter> filter_;
  std::optional<Timestamp> first_;
  std::uint64_t taken_ = 0;
  std::uint64_t filtered_ = 0;
};

/// Reads the packets of one capture file.
class CaptureReader {
 public:
  enum class Step : std::uint8_t { more, ended, satisfied };

  CaptureReader() = default;
  CaptureReader(const CaptureReader&) = delete;
  CaptureReader& operator=(const CaptureReader&) = delete;
  virtual ~CaptureReader() = default;

  /// libpcap's number for it (DLT_*).
  [[nodiscard]] virtual int link_type() const = 0;
  /// Reads and pushes about one batch. Packets before an error are pushed before it is thrown
  /// (std::runtime_error naming file, offset and record). `satisfied`: the gate wants no more.
  virtual Step step(Output<Packet>& out, PacketBatcher& batcher, Gate& gate) = 0;
  /// Where the file breaks off inside a record: its offset in the unpacked data.
  [[nodiscard]] virtual std::optional<std::uint64_t> cut_off_at() const = 0;
  [[nodiscard]] virtual std::uint64_t raw_position() const = 0;
};

/// Chooses the reader by the file's first bytes. `snaplen` cuts packets. Throws std::runtime_error
/// if the file is no capture, std::system_error if it cannot be opened; null if it is empty.
[[nodiscard]] std::unique_ptr<CaptureReader> open_capture(const std::filesystem::path& path,
                                                          std::uint32_t snaplen,
                                                          const std::stop_token& stop);

/// The same for a stream that has been opened; `name` is for messages.
[[nodiscard]] std::unique_ptr<CaptureReader> read_capture(const std::string& name,
                                                          std::uint32_t snaplen,
                                                          std::unique_ptr<ByteSource> bytes);

/// The two readers, for tests that compare them.
[[nodiscard]] std::unique_ptr<CaptureReader> libpcap_reader(std::string name, std::uint32_t snaplen,
                                                            std::unique_ptr<ByteSource> bytes);
/// Null if the header is not that of a plain classic capture; then `bytes` is left for libpcap.
[[nodiscard]] std::unique_ptr<CaptureReader> classic_reader(const std::string& name,
                                                            std::uint32_t snaplen,
                                                            std::unique_ptr<ByteSource>& bytes);

}  // namespace millrace
