#include <stdexcept>

#include <pcap/pcap.h>

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

}  // namespace millrace
