// Bytes as a capture file, plain or compressed: packets must lie inside their buffers, and what is
// wrong must end in an exception of the documented kinds. The packets go into a session table, so
// that `fuzz-pcap_reader CAPTURE...` takes real captures all the way.

#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "millrace/session_table.h"

#include "capture_reader.h"

namespace {

class Touch final : public millrace::Downstream {
 public:
  void push(millrace::BatchBase& batch) override {
    const auto& packets = static_cast<millrace::Batch<millrace::Packet>&>(batch).items;
    for (const auto& packet : packets) {
      for (const std::byte byte : packet.bytes()) sum += std::to_integer<unsigned>(byte);
    }
    table.add(packets, 0, emit);
    table.advance(batch.watermark, emit);
  }
  unsigned sum = 0;
  std::uint64_t emitted = 0;
  millrace::SessionTable table{
      {.max_sessions = 64, .max_bytes = 65536, .layer = millrace::Layer::l2}};
  const millrace::SessionTable::Emit emit =
      [this](const millrace::Session& session, std::uint64_t) { emitted += session.info.packets; };
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const int fd = memfd_create("fuzz", MFD_CLOEXEC);
  if (write(fd, data, size) != static_cast<ssize_t>(size)) return 0;
  lseek(fd, 0, SEEK_SET);
  Touch touch;
  millrace::Output<millrace::Packet> out(touch);
  try {
    millrace::PacketBatcher batcher(64, 4096);
    millrace::Gate gate(0, {});
    const auto reader = millrace::open_capture("/proc/self/fd/" + std::to_string(fd), 65535, {});
    while (reader && reader->step(out, batcher, gate) == millrace::CaptureReader::Step::more) {
    }
  } catch (const std::runtime_error&) {
    // The documented end of a damaged file.
  }
  touch.table.flush(touch.emit);
  if (touch.emitted != touch.table.counts().stored) std::abort();
  close(fd);
  return 0;
}
