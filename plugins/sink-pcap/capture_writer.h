#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <list>
#include <optional>
#include <string>
#include <vector>

#include "millrace/packet.h"

namespace millrace {

/// Capture files (classic pcap with nanoseconds, draft-ietf-opsawg-pcap) that are written at the
/// same time, more of them than may be open at once: the one that was not written to for longest is
/// closed, and opened again when it gets more.
///
/// Errors of a full disk are thrown as Transient, others as std::runtime_error; both name the file.
class CaptureWriter {
 public:
  struct File {
    explicit File(std::filesystem::path where) : path(std::move(where)) {}

    std::filesystem::path path;
    std::optional<LinkType> link;  ///< of its packets; none: no packet yet

   private:
    friend class CaptureWriter;
    bool made_ = false;   ///< by this run
    bool begun_ = false;  ///< has its header, or waits for it to be written
    int fd_ = -1;
    std::list<File*>::iterator place_;  ///< in open_, while fd_ is one
    std::string pending_;
    std::size_t written_ = 0;  ///< bytes of pending_ that the system has taken
  };

  explicit CaptureWriter(std::size_t most_open) : most_open_(most_open) {}
  CaptureWriter(const CaptureWriter&) = delete;
  CaptureWriter& operator=(const CaptureWriter&) = delete;
  ~CaptureWriter();

  /// Takes over an open descriptor for a file, which then stays open.
  void adopt(File& file, int fd);
  /// Adds to what `write_out` will write. The file, which must live as long as this object, begins
  /// with its first packet's link type if it has none yet.
  void add(File& file, const Packet& packet);
  /// A file without packets.
  void add_header(File& file, LinkType link);
  /// Hands everything over to the system. A later call goes on where one that threw has stopped.
  void write_out();

  [[nodiscard]] std::size_t open() const { return open_.size(); }

 private:
  std::string& pending_of(File& file);
  void make_ready(File& file);
  void close_oldest();

  std::size_t most_open_;
  std::list<File*> open_;       ///< those that were written to last at the front
  std::vector<File*> waiting_;  ///< those with something pending
  std::vector<int> adopted_;
};

}  // namespace millrace
