// The other floor: walks a classic Ethernet capture in memory and keeps the cheapest session table
// that there is, five-tuple to number of packets, without time, payload or any promise.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace {

struct Slot {
  std::uint64_t key = 0;  ///< a hash stands for the five-tuple; 0: free
  std::uint32_t packets = 0;
};

class Table {
 public:
  Table() : slots_(std::size_t{1} << 16U) {}
  void count(std::uint64_t key) {
    Slot& slot = find(slots_, key | 1U);
    if (slot.key == 0) {
      slot.key = key | 1U;
      if (++used_ * 2 > slots_.size()) grow();
      return;
    }
    ++slot.packets;
  }
  [[nodiscard]] std::size_t size() const { return used_; }

 private:
  static Slot& find(std::vector<Slot>& slots, std::uint64_t key) {
    const std::size_t mask = slots.size() - 1;
    std::size_t at = (key >> 20U) & mask;
    while (slots[at].key != 0 && slots[at].key != key) at = (at + 1) & mask;
    return slots[at];
  }
  void grow() {
    std::vector<Slot> larger(slots_.size() * 2);
    for (const Slot& slot : slots_) {
      if (slot.key != 0) find(larger, slot.key) = slot;
    }
    slots_ = std::move(larger);
  }
  std::vector<Slot> slots_;
  std::size_t used_ = 0;
};

template <class T>
T load(const std::uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

/// The same number for both directions.
std::uint64_t mix(std::uint64_t a, std::uint64_t b, std::uint8_t protocol) {
  constexpr std::uint64_t kOdd = 0x9E3779B97F4A7C15;
  const auto one = [](std::uint64_t x) {
    x *= kOdd;
    return x ^ (x >> 29U);
  };
  return (one(a) + one(b) + protocol) * kOdd;
}

std::uint64_t key_of(const std::uint8_t* frame, std::uint32_t size) {
  if (size < 14 + 20 + 4) return 0;
  const std::uint16_t type = load<std::uint16_t>(frame + 12);
  const std::uint8_t* ip = frame + 14;
  if (type == 0x0008) {
    const std::size_t header = (ip[0] & 0x0FU) * 4U;
    if ((ip[9] != 6 && ip[9] != 17) || size < 14 + header + 4) return 0;
    const std::uint8_t* ports = ip + header;
    return mix(std::uint64_t{load<std::uint32_t>(ip + 12)} << 16U | load<std::uint16_t>(ports),
               std::uint64_t{load<std::uint32_t>(ip + 16)} << 16U | load<std::uint16_t>(ports + 2),
               ip[9]);
  }
  if (type == 0xDD86 && size >= 14 + 40 + 4 && (ip[6] == 6 || ip[6] == 17)) {
    return mix(load<std::uint64_t>(ip + 8) ^ load<std::uint64_t>(ip + 16) * 3 ^
                   load<std::uint16_t>(ip + 40),
               load<std::uint64_t>(ip + 24) ^ load<std::uint64_t>(ip + 32) * 3 ^
                   load<std::uint16_t>(ip + 42),
               ip[6]);
  }
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr,
                 "usage: bench-mmap_walk CAPTURE (classic, Ethernet, this machine's byte order)\n");
    return 2;
  }
  const int file = ::open(arguments[1], O_RDONLY);
  struct stat about {};
  if (file < 0 || ::fstat(file, &about) != 0 || about.st_size < 24) {
    std::perror(arguments[1]);
    return 1;
  }
  const auto size = static_cast<std::size_t>(about.st_size);
  void* mapped = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
  if (mapped == MAP_FAILED) {
    std::perror("mmap");
    return 1;
  }
  ::madvise(mapped, size, MADV_SEQUENTIAL);
  const auto* bytes = static_cast<const std::uint8_t*>(mapped);
  Table table;
  std::uint64_t packets = 0;
  for (std::size_t at = 24; size - at >= 16;) {
    const auto captured = load<std::uint32_t>(bytes + at + 8);
    if (size - at - 16 < captured) break;
    if (const std::uint64_t key = key_of(bytes + at + 16, captured)) table.count(key);
    ++packets;
    at += 16 + captured;
  }
  std::printf("%lu packets, %zu five-tuples\n", static_cast<unsigned long>(packets), table.size());
  ::munmap(mapped, size);
  ::close(file);
}
