#include "packet_batcher.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace millrace {

std::shared_ptr<BufferPool::Buffer> BufferPool::take(std::size_t size) {
  std::unique_ptr<Buffer> buffer;
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      buffer = std::move(free_.back());
      free_.pop_back();
    }
  }
  if (!buffer) buffer = std::make_unique<Buffer>();
  if (buffer->bytes.size() < size) buffer->bytes.resize(size);
  // The batch may outlive the source: the pool goes with the last buffer.
  return {buffer.release(), [pool = shared_from_this()](Buffer* back) {
            constexpr std::size_t kKeep = 16;
            std::unique_ptr<Buffer> owned(back);
            const std::lock_guard lock(pool->mutex_);
            if (pool->free_.size() < kKeep) pool->free_.push_back(std::move(owned));
          }};
}

PacketBatcher::PacketBatcher(std::size_t packets, std::size_t bytes, std::string agent)
    : most_packets_(packets), most_bytes_(bytes) {
  pool_->origin.agent = std::move(agent);
}

void PacketBatcher::set_agent(std::string agent) {
  if (agent == pool_->origin.agent) return;
  // Batches under way still point to the old name, in the old pool.
  pool_ = std::make_shared<BufferPool>();
  pool_->origin.agent = std::move(agent);
}

void PacketBatcher::add(Output<Packet>& out, const Packet& packet) {
  if (buffer_ &&
      (packets_.size() >= most_packets_ || used_ + packet.captured > buffer_->bytes.size())) {
    push(out);
  }
  if (!buffer_) {
    buffer_ = pool_->take(std::max<std::size_t>(most_bytes_, packet.captured));
    packets_.reserve(most_packets_);
    used_ = 0;
  }
  std::byte* to = buffer_->bytes.data() + used_;
  if (packet.captured != 0) std::memcpy(to, packet.data, packet.captured);
  used_ += packet.captured;
  packets_.push_back(packet);
  packets_.back().data = to;
}

void PacketBatcher::push(Output<Packet>& out) {
  if (packets_.empty()) return;
  push_views(out, std::exchange(packets_, {}), std::exchange(buffer_, nullptr));
}

void PacketBatcher::push_views(Output<Packet>& out, std::vector<Packet> packets,
                               std::shared_ptr<BufferPool::Buffer> buffer) {
  if (packets.empty()) return;
  for (const Packet& packet : packets) clock_.see(packet.time);
  for (std::size_t i = packets.size() - std::min(packets.size(), kTimes); i < packets.size(); ++i) {
    if (last_.size() == kTimes) last_.erase(last_.begin());
    last_.push_back(packets[i].time);
  }
  if (!pool_->origin.agent.empty()) {
    for (Packet& packet : packets) packet.origin = &pool_->origin;
  }
  Batch<Packet> batch(std::move(packets));
  batch.watermark = clock_.watermark();
  batch.storage_bytes = buffer->bytes.size();
  batch.storage = std::move(buffer);
  out.push(std::move(batch));
}

void PacketBatcher::push_time(Output<Packet>& out, Timestamp watermark) {
  clock_.hear(watermark);
  Batch<Packet> batch;
  batch.watermark = clock_.watermark();
  out.push(std::move(batch));
}

void PacketBatcher::push_end(Output<Packet>& out) {
  clock_.restart();
  last_.clear();
  Batch<Packet> batch;
  batch.watermark = kStreamEnds;
  out.push(std::move(batch));
}

}  // namespace millrace
