// The floor: reads a capture with libpcap and does nothing with the packets.

#include <cstdint>
#include <cstdio>

#include <pcap/pcap.h>

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: bench-libpcap_loop CAPTURE\n");
    return 2;
  }
  char message[PCAP_ERRBUF_SIZE];
  pcap_t* handle = pcap_open_offline(arguments[1], message);
  if (handle == nullptr) {
    std::fprintf(stderr, "%s\n", message);
    return 1;
  }
  pcap_pkthdr* header = nullptr;
  const u_char* data = nullptr;
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;
  while (pcap_next_ex(handle, &header, &data) == 1) {
    ++packets;
    bytes += header->caplen;
  }
  pcap_close(handle);
  std::printf("%lu packets, %lu bytes\n", static_cast<unsigned long>(packets),
              static_cast<unsigned long>(bytes));
  return 0;
}
