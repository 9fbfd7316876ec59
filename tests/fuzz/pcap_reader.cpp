// Bytes as a capture file, plain or compressed: packets must lie inside their buffers, and what is
// wrong must end in an exception of the documented kinds.

#include <cstdint>
#include <stdexcept>
#include <string>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "capture_reader.h"

namespace {

class Touch final : public millrace::Downstream {
 public:
  void push(millrace::BatchBase& batch) override {
    for (const auto& packet : static_cast<millrace::Batch<millrace::Packet>&>(batch).items) {
      for (const std::byte byte : packet.bytes()) sum += std::to_integer<unsigned>(byte);
    }
  }
  unsigned sum = 0;
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
  close(fd);
  return 0;
}
