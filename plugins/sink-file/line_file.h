#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "millrace/context.h"

namespace millrace {

/// An open file that lines are added to, whole lines only as far as the system allows.
///
/// A file that is replaced keeps its old content until the first write_out, so that a pipeline
/// that fails to start destroys nothing.
class LineFile {
 public:
  LineFile() = default;
  LineFile(const LineFile&) = delete;
  LineFile& operator=(const LineFile&) = delete;
  ~LineFile();

  /// "-" is standard output, which is never emptied. Throws ConfigError for the option "path".
  void open(const std::string& path, bool append);
  /// For a file that is appended to: what it holds already.
  struct Found {
    std::string first_line;         ///< without its end, at most 1 KiB; empty for an empty file
    bool ends_inside_line = false;  ///< an earlier run was cut off
  };
  [[nodiscard]] Found found() const;

  /// Adds one line (with its end) to what write_out will write.
  std::string& begin_line() { return buffer_; }
  void end_line() { ends_.push_back(buffer_.size()); }

  /// Hands everything over to the system. Throws Transient when the disk is full or the reader of a
  /// non-blocking pipe is slow, std::runtime_error else; a later call goes on where this one
  /// stopped.
  void write_out();
  [[nodiscard]] std::size_t waiting_bytes() const { return buffer_.size() - written_; }

 private:
  void make_room();
  [[noreturn]] void fail(int error);
  void take_back_torn_line();

  std::string path_;
  std::string name_;  ///< of the file in messages
  int fd_ = -1;
  bool replace_ = false;  ///< until the first write_out has emptied the file
  bool regular_ = false;
  std::string buffer_;
  std::vector<std::size_t> ends_;  ///< of the lines in the buffer
  std::size_t written_ = 0;        ///< bytes of the buffer that the system has taken
};

}  // namespace millrace
