#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "millrace/packet.h"
#include "millrace/packet_clock.h"
#include "millrace/stage.h"

namespace millrace {

/// Buffers for packet bytes that come back when the last batch that points into them is gone.
class BufferPool : public std::enable_shared_from_this<BufferPool> {
 public:
  struct Buffer {
    std::vector<std::byte> bytes;
  };

  /// At least `size` bytes.
  [[nodiscard]] std::shared_ptr<Buffer> take(std::size_t size);

  /// For packets in these buffers: the pool lives as long as one of them.
  Origin origin;

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Buffer>> free_;
};

/// Collects packets into batches and pushes them. Packets are either copied in (`add`) or lie in a
/// buffer of the pool already (`push_views`).
class PacketBatcher {
 public:
  /// With an `agent` all packets bear its name.
  PacketBatcher(std::size_t packets, std::size_t bytes, std::string agent = {});

  /// Copies the packet. Pushes first if the batch is full.
  void add(Output<Packet>& out, const Packet& packet);
  /// Pushes what was added, if anything.
  void push(Output<Packet>& out);
  /// Pushes packets that are views into `buffer`.
  void push_views(Output<Packet>& out, std::vector<Packet> packets,
                  std::shared_ptr<BufferPool::Buffer> buffer);
  /// An empty batch: no packet before `watermark` will come.
  void push_time(Output<Packet>& out, Timestamp watermark);
  /// What comes from now on does not continue what came before; that must be pushed.
  void push_end(Output<Packet>& out);

  /// The packets added from now on bear this name; what was added before must be pushed.
  void set_agent(std::string agent);

  [[nodiscard]] BufferPool& pool() { return *pool_; }
  [[nodiscard]] bool empty() const { return packets_.empty(); }
  [[nodiscard]] std::size_t batch_packets() const { return most_packets_; }
  [[nodiscard]] std::size_t batch_bytes() const { return most_bytes_; }
  /// The times of the last packets pushed, oldest first; none since `push_end`.
  [[nodiscard]] std::span<const Timestamp> last_times() const { return last_; }

  /// Packets that are enough to tell the time of a file's begin or end.
  static constexpr std::size_t kTimes = 15;

 private:
  const std::size_t most_packets_;
  const std::size_t most_bytes_;
  std::shared_ptr<BufferPool> pool_ = std::make_shared<BufferPool>();
  std::shared_ptr<BufferPool::Buffer> buffer_;
  std::vector<Packet> packets_;
  std::size_t used_ = 0;
  PacketClock clock_;
  std::vector<Timestamp> last_;
};

}  // namespace millrace
