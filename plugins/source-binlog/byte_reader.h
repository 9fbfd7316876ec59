#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string_view>

namespace millrace {

/// Walks over the bytes of an event. Reading beyond the end throws std::runtime_error.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::uint8_t> bytes) : rest_(bytes) {}

  [[nodiscard]] bool at_end() const noexcept { return rest_.empty(); }
  std::span<const std::uint8_t> take(std::size_t size) {
    if (size > rest_.size()) throw std::runtime_error("the event ends too early");
    const auto taken = rest_.first(size);
    rest_ = rest_.subspan(size);
    return taken;
  }
  std::string_view text(std::size_t size) {
    const auto taken = take(size);
    return {reinterpret_cast<const char*>(taken.data()), taken.size()};
  }
  /// A number of 0 to 8 bytes, lowest first; of more it throws.
  std::uint64_t little(std::size_t size) {
    expect_number(size);
    std::uint64_t value = 0;
    unsigned shift = 0;
    for (const std::uint8_t byte : take(size)) {
      value |= static_cast<std::uint64_t>(byte) << shift;
      shift += 8;
    }
    return value;
  }
  /// The same, highest first.
  std::uint64_t big(std::size_t size) {
    expect_number(size);
    std::uint64_t value = 0;
    for (const std::uint8_t byte : take(size)) value = value << 8U | byte;
    return value;
  }
  /// The protocol's number of variable length.
  std::uint64_t length() {
    constexpr std::uint64_t kTwo = 0xfc;
    constexpr std::uint64_t kThree = 0xfd;
    constexpr std::uint64_t kEight = 0xfe;
    const std::uint64_t first = little(1);
    if (first < kTwo - 1) return first;
    if (first == kTwo) return little(2);
    if (first == kThree) return little(3);
    if (first == kEight) return little(8);
    throw std::runtime_error("a length in the event is none");
  }

 private:
  static void expect_number(std::size_t size) {
    if (size > sizeof(std::uint64_t)) throw std::runtime_error("a number in the event is too long");
  }

  std::span<const std::uint8_t> rest_;
};

/// Bit `number` of a bitmap whose first bit is the lowest one of its first byte.
inline bool bit_of(std::span<const std::uint8_t> bitmap, std::size_t number) {
  return (bitmap[number / 8] >> (number % 8) & 1U) != 0;
}

}  // namespace millrace
