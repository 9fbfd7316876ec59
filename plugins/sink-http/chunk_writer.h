#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "millrace/batch.h"
#include "millrace/context.h"
#include "millrace/packet.h"

#include "capture_frame.h"
#include "spool.h"

namespace millrace {

/// Makes chunks of packets: records wait in memory until a frame is worth writing, frames make a
/// chunk until that is large or old enough. Threads: the stage's.
class ChunkWriter {
 public:
  ChunkWriter(const UploadOptions& options, Context& context, Spool& spool);

  /// Takes the packets, and the receipt unless the batch is empty.
  void add(Batch<Packet>& batch);
  /// Closes the chunk, if there is one.
  void close();

 private:
  void add(const Packet& packet, const Receipt& receipt, Timestamp now);
  void write_frame();
  void look_at_clock(Timestamp now);

  const UploadOptions& options_;
  Context& context_;
  Spool& spool_;
  CaptureFrame frame_;
  std::vector<Receipt> frame_receipts_;  ///< of batches with packets in the frame
  Timestamp frame_since_{};
  std::unique_ptr<Chunk> chunk_;  ///< null: no packet since the last one was closed
  LinkType link_ = LinkType::ethernet;
  std::size_t chunk_size_ = 0;  ///< before compression, without the frame
  Timestamp chunk_since_{};
};

}  // namespace millrace
