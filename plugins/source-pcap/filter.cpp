#include <stdexcept>

#include <fmt/format.h>
#include <pcap/pcap.h>

#include "millrace/error.h"

#include "capture_reader.h"

namespace millrace {

namespace {
struct Close {
  void operator()(pcap_t* handle) const { pcap_close(handle); }
};
}  // namespace

void Filter::Free::operator()(bpf_program* program) const {
  pcap_freecode(program);
  delete program;
}

Filter::Filter(const std::string& expression, int link_type, std::uint32_t snaplen)
    : program_(new bpf_program{}) {
  const std::unique_ptr<pcap_t, Close> dead(pcap_open_dead(link_type, static_cast<int>(snaplen)));
  if (!dead) throw std::bad_alloc();
  if (pcap_compile(dead.get(), program_.get(), expression.c_str(), 1, PCAP_NETMASK_UNKNOWN) != 0) {
    throw std::runtime_error(pcap_geterr(dead.get()));
  }
}

bool Filter::matches(const Packet& packet) const noexcept {
  pcap_pkthdr header{};
  header.caplen = packet.captured;
  header.len = packet.length;
  return pcap_offline_filter(program_.get(), &header,
                             reinterpret_cast<const u_char*>(packet.data)) != 0;
}

void Filters::select(LinkType link) {
  auto known = compiled_.find(link);
  if (known == compiled_.end()) {
    try {
      known = compiled_.emplace(link, Filter(expression_, static_cast<int>(link), snaplen_)).first;
    } catch (const std::runtime_error& error) {
      throw ConfigError("filter",
                        fmt::format("'{}' does not fit the link type {} of the capture: {}",
                                    expression_, link_name(link), error.what()));
    }
  }
  link_ = link;
  current_ = &known->second;
}

std::string link_name(LinkType link) {
  const char* name = pcap_datalink_val_to_name(static_cast<int>(link));
  return fmt::format("{} ({})", name != nullptr ? name : "unknown", static_cast<unsigned>(link));
}

LinkType link_of(std::uint16_t number) {
  switch (number) {  // the others are the same
    case 32:
      return static_cast<LinkType>(DLT_REDBACK_SMARTEDGE);
    case 100:
      return static_cast<LinkType>(DLT_ATM_RFC1483);
    case 101:
      return LinkType::raw_dlt;
    case 102:
      return static_cast<LinkType>(DLT_SLIP_BSDOS);
    case 103:
      return static_cast<LinkType>(DLT_PPP_BSDOS);
    case 106:
      return static_cast<LinkType>(DLT_ATM_CLIP);
    case 246:
      return static_cast<LinkType>(DLT_PFSYNC);
    default:
      return static_cast<LinkType>(number);
  }
}

void Census::look(const Packet& packet) {
  Decoded decoded;
  const Decode kind = decode(packet, decoded);
  ++kinds_[static_cast<std::size_t>(kind)];
  if (kind == Decode::link_type) {
    ++unknown_[packet.link];
  } else if (kind == Decode::transport || kind == Decode::later_fragment) {
    found_ = true;
    const auto link = static_cast<std::size_t>(packet.link);
    if (link < proven_.size()) proven_[link] = true;
  }
}

std::string Census::unknown_links() const {
  std::string text;
  for (const auto& [link, packets] : unknown_) {
    text += fmt::format("{}{}", text.empty() ? "link type " : ", ", link_name(link));
    if (unknown_.size() > 1) text += fmt::format(" in {} packets", packets);
  }
  return text;
}

std::string Census::reasons() const {
  std::string text;
  for (std::size_t i = 0; i < kinds_.size(); ++i) {
    if (kinds_[i] == 0) continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", to_string(static_cast<Decode>(i)),
                        kinds_[i]);
  }
  return text;
}

}  // namespace millrace
