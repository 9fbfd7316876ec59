#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace millrace {

/// Objects addressed by 32-bit numbers, in chunks that never move. Freed ones are used again;
/// memory is not given back before the slab goes. `T` is default-constructed once and then reused
/// as it is.
template <class T, std::size_t ChunkSize>
class Slab {
 public:
  T& operator[](std::uint32_t index) noexcept {
    return chunks_[index / ChunkSize][index % ChunkSize];
  }
  const T& operator[](std::uint32_t index) const noexcept {
    return chunks_[index / ChunkSize][index % ChunkSize];
  }

  std::uint32_t allocate() {
    if (free_.empty()) grow();
    const std::uint32_t index = free_.back();
    free_.pop_back();
    return index;
  }
  void release(std::uint32_t index) noexcept { free_.push_back(index); }

  [[nodiscard]] std::size_t used() const noexcept {
    return chunks_.size() * ChunkSize - free_.size();
  }

 private:
  void grow() {
    const auto first = static_cast<std::uint32_t>(chunks_.size() * ChunkSize);
    chunks_.push_back(std::make_unique_for_overwrite<T[]>(ChunkSize));
    // Room for all, so that release never allocates.
    free_.reserve(chunks_.size() * ChunkSize);
    for (std::size_t i = ChunkSize; i-- > 0;) {
      free_.push_back(first + static_cast<std::uint32_t>(i));
    }
  }

  std::vector<std::unique_ptr<T[]>> chunks_;
  std::vector<std::uint32_t> free_;
};

}  // namespace millrace
