#include "chunk_writer.h"

#include <utility>

namespace millrace {

ChunkWriter::ChunkWriter(const UploadOptions& options, Context& context, Spool& spool)
    : options_(options), context_(context), spool_(spool), frame_(options.level) {}

void ChunkWriter::add(Batch<Packet>& batch) {
  const Timestamp now = context_.clock().now();
  if (!batch.items.empty()) {
    if (spool_.refuses()) {
      spool_.dropped(batch.items.size());
    } else {
      for (const Packet& packet : batch.items) add(packet, batch.receipt, now);
      // Those before this frame have shares of their own.
      if (frame_.packets() != 0) frame_receipts_.push_back(std::move(batch.receipt));
    }
    batch.receipt.done();
  }
  look_at_clock(now);
}

void ChunkWriter::add(const Packet& packet, const Receipt& receipt, Timestamp now) {
  const std::size_t size = kRecordHeader + packet.captured;
  if (chunk_ &&
      (packet.link != link_ || chunk_size_ + frame_.size() + size > options_.chunk_bytes.bytes)) {
    if (frame_.packets() != 0) frame_receipts_.push_back(receipt.fork());
    close();
  } else if (frame_.packets() != 0 && frame_.size() + size > options_.flush_bytes.bytes) {
    frame_receipts_.push_back(receipt.fork());
    write_frame();
  }
  if (!chunk_) {
    chunk_ = spool_.make_chunk();
    chunk_size_ = 0;
    chunk_since_ = now;
    link_ = packet.link;
  }
  if (frame_.packets() == 0) {
    frame_since_ = now;
    if (chunk_->bytes == 0) frame_.begin_capture(link_);
  }
  frame_.add(packet);
}

void ChunkWriter::write_frame() {
  if (frame_.packets() == 0) return;
  const std::uint64_t packets = frame_.packets();
  if (spool_.append(*chunk_, frame_.pack())) {
    chunk_->packets += packets;
    chunk_size_ += frame_.size();
    for (Receipt& receipt : frame_receipts_) chunk_->receipts.push_back(std::move(receipt));
  } else {
    spool_.dropped(packets);
    for (Receipt& receipt : frame_receipts_) receipt.done();
  }
  frame_receipts_.clear();
  frame_.clear();
}

void ChunkWriter::close() {
  if (!chunk_) return;
  write_frame();
  if (chunk_->packets == 0) {
    spool_.discard(std::move(chunk_));
    return;
  }
  spool_.close(std::move(chunk_));
}

void ChunkWriter::look_at_clock(Timestamp now) {
  if (!chunk_) return;
  // A wall clock that was set back would let packets wait for as long.
  const auto due = [now](Timestamp since, Duration after) {
    return now < since || now - since >= after;
  };
  if (due(chunk_since_, options_.chunk_age)) {
    close();
  } else if (frame_.packets() != 0 && due(frame_since_, options_.flush_every)) {
    write_frame();
  }
}

}  // namespace millrace
