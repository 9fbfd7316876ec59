#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/receipt.h"
#include "millrace/time.h"

#include "descriptor.h"

namespace millrace {

/// What a chunk's file name says. A file that is being written ends in `.part` and does not know
/// its packets yet; a finished one ends in `.pcap.zst`. Names sort by age.
struct ChunkName {
  std::uint64_t number = 0;  ///< rises with every chunk of a spool folder
  std::string time;          ///< when it was begun, UTC
  std::string id;            ///< random; names the chunk to the server, in every try
  std::optional<std::uint64_t> packets;

  [[nodiscard]] std::string file() const;
  /// Nothing for a file that is no chunk.
  static std::optional<ChunkName> parse(std::string_view file);
};

/// When a chunk may be tried again; kept by Schedule.
struct Retry {
  std::uint32_t failures = 0;
  /// Others got through between its failures: it is the chunk and not the server.
  bool suspect = false;
  std::uint64_t successes_then = 0;
  std::chrono::steady_clock::time_point not_before{};
};

/// A capture in a file, or on its way there.
struct Chunk {
  enum class State : std::uint8_t { sealing, waiting, under_way };

  ChunkName name;
  std::uint64_t order = 0;  ///< its place in the spool; the name's number, if nobody else has that
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;  ///< of the file
  bool mine = true;         ///< its packets came in this run, and are on this run's books
  bool checked = true;      ///< false: a file of an earlier run that nobody has looked into
  State state = State::sealing;
  Descriptor file;  ///< while it is written; of an anonymous file as long as it lives
  std::vector<Receipt> receipts;
  Retry retry;
};

/// 32 hexadecimal digits that nobody had before.
[[nodiscard]] std::string random_chunk_id();

}  // namespace millrace
