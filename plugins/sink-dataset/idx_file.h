#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

/// A file that is written at given places, so that a write that failed can simply be made again.
///
/// It keeps its old content until `clear`. Errors of a full disk are thrown as Transient, others as
/// std::runtime_error; both name the file.
class PlacedFile {
 public:
  PlacedFile() = default;
  PlacedFile(const PlacedFile&) = delete;
  PlacedFile& operator=(const PlacedFile&) = delete;
  ~PlacedFile();

  /// Makes the file if it is not there. Throws ConfigError for the option "path".
  void open(const std::filesystem::path& path);
  void clear();
  void write(std::uint64_t offset, std::string_view bytes);

 private:
  [[noreturn]] void fail(int error) const;

  std::string path_;
  int fd_ = -1;
};

/// An IDX file of unsigned bytes (the format of MNIST): the first dimension is the number of items,
/// which grows; `item` are the others. The number in the header is that of the items which are
/// there, whenever the program ends.
class IdxFile {
 public:
  void open(const std::filesystem::path& path, std::vector<std::uint32_t> item);
  /// Replaces what the file holds by a header for no items.
  void clear();
  /// Puts items at the end; they are part of the file after `commit(total)`. Until then the same
  /// call may be made again.
  void put(std::uint32_t first, std::string_view items);
  void commit(std::uint32_t total);

 private:
  [[nodiscard]] std::uint64_t header_size() const { return 4 * (2 + item_.size()); }

  PlacedFile file_;
  std::vector<std::uint32_t> item_;
  std::uint64_t item_size_ = 1;
};

}  // namespace millrace
