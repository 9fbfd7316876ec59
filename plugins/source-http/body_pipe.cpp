#include "body_pipe.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace millrace {

bool BodyPipe::has_room() const {
  const std::lock_guard lock(mutex_);
  return held_ < capacity_ || error_;
}

void BodyPipe::write(std::vector<std::byte> block) {
  if (block.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    if (error_) return;
    held_ += block.size();
    blocks_.push_back(std::move(block));
  }
  changed_.notify_one();
}

void BodyPipe::end() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  changed_.notify_one();
}

void BodyPipe::fail(const UploadError& error) {
  {
    const std::lock_guard lock(mutex_);
    if (error_) return;
    error_ = error;
    blocks_.clear();
    held_ = 0;
    at_ = 0;
  }
  changed_.notify_one();
  wakeup_->wake();
}

bool BodyPipe::failed() const {
  const std::lock_guard lock(mutex_);
  return error_.has_value();
}

std::size_t BodyPipe::read(std::span<std::byte> to) {
  std::size_t filled = 0;
  while (filled < to.size()) {
    bool room_again = false;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return error_ || ended_ || !blocks_.empty(); });
      if (error_) throw UploadError(*error_);
      if (blocks_.empty()) break;
      const bool was_full = held_ >= capacity_;
      const std::vector<std::byte>& block = blocks_.front();
      const std::size_t size = std::min(to.size() - filled, block.size() - at_);
      std::memcpy(to.data() + filled, block.data() + at_, size);
      filled += size;
      at_ += size;
      held_ -= size;
      taken_ += size;
      if (at_ == block.size()) {
        blocks_.pop_front();
        at_ = 0;
      }
      room_again = was_full && held_ < capacity_;
    }
    if (room_again) wakeup_->wake();
  }
  return filled;
}

std::uint64_t BodyPipe::taken() const {
  const std::lock_guard lock(mutex_);
  return taken_;
}

}  // namespace millrace
