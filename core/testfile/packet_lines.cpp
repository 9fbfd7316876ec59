#include "testfile/packet_lines.h"

#include <utility>

#include <fmt/format.h>

#include "testfile/packet_bytes.h"

namespace millrace::host {

const std::vector<OptionSpec>& PacketLine::specs() {
  static const std::vector<OptionSpec> kList = {
      option<&PacketLine::time>("time", "since the begin; without it that of the item before"),
      option<&PacketLine::tcp>("tcp", "\"10.0.0.1:1234 > 10.0.0.2:80\""),
      option<&PacketLine::udp>("udp", "the same for UDP"),
      option<&PacketLine::flags>("flags", "of TCP: letters of FSRPAU"),
      option<&PacketLine::payload>("payload", "as text"),
      option<&PacketLine::hex>("hex", "the payload in hexadecimal digits"),
      option<&PacketLine::payload_bytes>("payload_bytes", "a payload of so many zero bytes")
          .between(0, static_cast<std::uint32_t>(kLongestPayload)),
      option<&PacketLine::frame>("frame", "a whole Ethernet frame in hexadecimal digits"),
      option<&PacketLine::agent>("agent", "who captured it"),
      option<&PacketLine::repeat>("repeat", "how often it comes").between(1, kMostRepeats),
      option<&PacketLine::every>("every", "time from one repetition to the next")};
  return kList;
}

bool PacketReader::read(Line& line) {
  line_ = {};
  if (!line.bind(line_, PacketLine::specs(), "a packet", line.table())) return false;
  const int kinds = int{line.has("tcp")} + int{line.has("udp")} + int{line.has("frame")};
  const int payloads =
      int{line.has("payload")} + int{line.has("hex")} + int{line.has("payload_bytes")};
  if (kinds > 1) line.wrong("udp", "a packet is one of tcp, udp and frame", "one of them");
  if (payloads > 1) {
    line.wrong("hex", "the payload is given twice", "one of payload, hex and payload_bytes");
  }
  if (payloads == 1 && (kinds == 0 || line.has("frame"))) {
    line.wrong("payload", "a payload needs tcp or udp", "tcp = \"10.0.0.1:1234 > 10.0.0.2:80\"");
  }
  if (kinds == 0) {
    if (!line.has("time")) line.wrong("", "this is no packet", "tcp, udp, frame, or a time alone");
    frame_.clear();
    return line.good();
  }
  return line.has("frame") ? read_frame(line) : read_transport(line);
}

Packet PacketReader::item(Timestamp time, Storage& storage) {
  const auto bytes = bytes_of(storage.keep(frame_));
  Packet packet;
  packet.time = time;
  packet.data = bytes.data();
  packet.captured = packet.length = static_cast<std::uint32_t>(bytes.size());
  packet.number = number_++;
  if (!line_.agent.empty()) {
    if (storage.origins.empty() || storage.origins.back().agent != line_.agent) {
      storage.origins.push_back({line_.agent, {}});
    }
    packet.origin = &storage.origins.back();
  }
  return packet;
}

bool PacketReader::read_frame(Line& line) {
  const auto bytes = parse_hex(line_.frame);
  if (!bytes || bytes->empty()) {
    line.wrong("frame", "this is no frame", "pairs of hexadecimal digits");
  } else {
    frame_ = *bytes;
  }
  return line.good();
}

bool PacketReader::read_transport(Line& line) {
  const bool tcp = line.has("tcp");
  const auto flow = parse_flow(tcp ? line_.tcp : line_.udp);
  if (!flow) {
    line.wrong(tcp ? "tcp" : "udp", "these are no two endpoints",
               R"("10.0.0.1:1234 > 10.0.0.2:80" or "[fd00::1]:1234 > [fd00::2]:80")");
  }
  const auto flags = parse_tcp_flags(line_.flags);
  if (!flags) line.wrong("flags", "these are no TCP flags", "letters of FSRPAU");
  if (!tcp && line.has("flags")) line.wrong("flags", "UDP has no flags", "'flags' with tcp");
  std::string payload = std::move(line_.payload);
  if (line.has("hex")) {
    const auto bytes = parse_hex(line_.hex);
    if (!bytes) line.wrong("hex", "this is no payload", "pairs of hexadecimal digits");
    payload = bytes.value_or(std::string());
  } else if (line.has("payload_bytes")) {
    payload.assign(line_.payload_bytes, '\0');
  }
  if (payload.size() > kLongestPayload) {
    line.wrong(line.has("hex") ? "hex" : "payload", "the payload is too long for one packet",
               fmt::format("at most {} bytes", kLongestPayload));
  }
  if (!line.good()) return false;
  frame_ = build_frame(*flow, tcp ? flags : std::nullopt, payload);
  return true;
}

}  // namespace millrace::host
