#pragma once

#include <optional>
#include <string>
#include <vector>

#include "millrace/packet.h"

#include "testfile/item_line.h"

namespace millrace::host {

struct PacketLine {
  std::optional<Duration> time{};
  std::string tcp{}, udp{}, flags = "A", payload{}, hex{}, frame{}, agent{};
  std::uint32_t payload_bytes = 0;
  std::uint32_t repeat = 1;
  Duration every{};

  static const std::vector<OptionSpec>& specs();
};

/// Reads the lines of `packets`, as ListReader in items.cpp wants it.
class PacketReader {
 public:
  using Item = Packet;

  bool read(Line& line);
  [[nodiscard]] bool only_time() const { return frame_.empty(); }
  [[nodiscard]] std::optional<Duration> time() const { return line_.time; }
  [[nodiscard]] std::uint32_t repeat() const { return line_.repeat; }
  [[nodiscard]] Duration every() const { return line_.every; }

  Packet item(Timestamp time, Storage& storage);
  static Timestamp last(const Packet& packet) { return packet.time; }

 private:
  bool read_frame(Line& line);
  bool read_transport(Line& line);

  PacketLine line_;
  std::string frame_;
  std::uint32_t number_ = 0;
};

}  // namespace millrace::host
