#include <cstring>
#include <deque>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "millrace/session_table.h"

namespace millrace {

namespace {

/// What a batch of sessions points into.
struct Storage {
  std::vector<std::unique_ptr<std::byte[]>> chunks;
  std::vector<SessionPacket> packets;
  std::deque<std::string> agents;
};

}  // namespace

class SessionBatch::Impl {
 public:
  void add(const Session& session) {
    sessions_.push_back(session);
    sessions_.back().info.agent = keep(session.info.agent);
    first_packet_.push_back(storage_->packets.size());
    const bool here = !session.packets.empty() && in_room(session.packets.front().data);
    for (const SessionPacket& packet : session.packets) {
      SessionPacket& copy = storage_->packets.emplace_back(packet);
      if (here) continue;
      std::byte* to = allocate(packet.size);
      if (packet.size != 0) std::memcpy(to, packet.data, packet.size);
      copy.data = to;
    }
  }

  Batch<Session> take() {
    // The array of packets has its place only now that it no longer grows.
    for (std::size_t i = 0; i < sessions_.size(); ++i) {
      sessions_[i].packets =
          std::span(storage_->packets).subspan(first_packet_[i], sessions_[i].packets.size());
    }
    Batch<Session> batch(std::move(sessions_));
    batch.storage_bytes = bytes();
    batch.storage = std::move(storage_);
    storage_ = std::make_shared<Storage>();
    sessions_ = {};
    first_packet_.clear();
    room_ = {};
    free_ = 0;
    chunk_bytes_ = 0;
    return batch;
  }

  std::span<std::byte> room(std::size_t bytes) {
    room_ = {allocate(bytes), bytes};
    return room_;
  }

  [[nodiscard]] std::size_t size() const { return sessions_.size(); }
  [[nodiscard]] std::size_t bytes() const {
    return chunk_bytes_ + storage_->packets.capacity() * sizeof(SessionPacket);
  }

 private:
  static constexpr std::size_t kChunk = std::size_t{64} * 1024;

  /// Sessions of one agent mostly come together.
  std::string_view keep(std::string_view agent) {
    if (agent.empty()) return {};
    if (storage_->agents.empty() || storage_->agents.back() != agent) {
      storage_->agents.emplace_back(agent);
    }
    return storage_->agents.back();
  }

  [[nodiscard]] bool in_room(const std::byte* data) const {
    const std::less_equal<> ordered;  // of pointers into any objects
    return !room_.empty() && ordered(room_.data(), data) &&
           ordered(data, room_.data() + room_.size());
  }

  std::byte* allocate(std::size_t size) {
    if (size > free_) {
      const std::size_t chunk = std::max(kChunk, size);
      storage_->chunks.push_back(std::make_unique_for_overwrite<std::byte[]>(chunk));
      next_ = storage_->chunks.back().get();
      free_ = chunk;
      chunk_bytes_ += chunk;
    }
    free_ -= size;
    return std::exchange(next_, next_ + size);
  }

  std::vector<Session> sessions_;
  std::vector<std::size_t> first_packet_;
  std::shared_ptr<Storage> storage_ = std::make_shared<Storage>();
  std::span<std::byte> room_;  ///< given out last
  std::byte* next_ = nullptr;
  std::size_t free_ = 0;
  std::size_t chunk_bytes_ = 0;
};

SessionBatch::SessionBatch() : impl_(std::make_unique<Impl>()) {}
SessionBatch::~SessionBatch() = default;
void SessionBatch::add(const Session& session) { impl_->add(session); }
std::span<std::byte> SessionBatch::room(std::size_t bytes) { return impl_->room(bytes); }
std::size_t SessionBatch::size() const noexcept { return impl_->size(); }
std::size_t SessionBatch::bytes() const noexcept { return impl_->bytes(); }
Batch<Session> SessionBatch::take() { return impl_->take(); }

}  // namespace millrace
