#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "distinct_rows.h"

namespace millrace {

/// A file that replaces another as a whole: its bytes go to `path`.part, which gets the file's name
/// at `commit`. Without that the earlier file stays and the new one goes. Errors of a full disk are
/// thrown as Transient, others as std::runtime_error; both name the file.
class ReplacedFile {
 public:
  explicit ReplacedFile(const std::filesystem::path& path);
  ReplacedFile(ReplacedFile&& other) noexcept;
  ReplacedFile& operator=(ReplacedFile&&) = delete;
  ReplacedFile(const ReplacedFile&) = delete;
  ReplacedFile& operator=(const ReplacedFile&) = delete;
  ~ReplacedFile();

  void append(std::string_view bytes);
  /// Hands everything over to the system.
  void finish();
  void commit();

 private:
  [[noreturn]] void fail(int error) const;

  std::filesystem::path path_;
  std::filesystem::path part_;
  int fd_ = -1;
  std::string buffer_;
};

/// [train|dev]-images-idx3-ubyte, [train|dev]-labels-idx1-ubyte (the format of MNIST) and
/// labels.txt, all replaced or none unless the program is killed between their renames. A dev part
/// without rows has no files.
void write_idx(const std::filesystem::path& folder, const DataSplit& split, std::uint32_t bytes);

/// dataset.npz with the arrays train_x, train_y, dev_x, dev_y and labels, for numpy.load.
void write_npz(const std::filesystem::path& folder, const DataSplit& split, std::uint32_t bytes);

/// sessions.csv: the session that each row was made of.
void write_index(const std::filesystem::path& folder, const DataSplit& split);

}  // namespace millrace
