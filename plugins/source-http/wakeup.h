#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <utility>

namespace millrace {

/// Shut before the I/O context goes, so that nothing that lives on (a receipt in a later stage)
/// reaches into it.
struct Door {
  std::mutex mutex;
  bool open = true;

  void shut() {
    const std::lock_guard lock(mutex);
    open = false;
  }
};

/// Lets any thread wake the connection that waits for something; does nothing once the connection
/// or the server has gone.
class Wakeup {
 public:
  explicit Wakeup(std::shared_ptr<Door> door) : door_(std::move(door)) {}

  /// `post` must only post, not act. It is called until `detach`.
  void attach(std::function<void()> post) {
    const std::lock_guard lock(door_->mutex);
    post_ = std::move(post);
  }
  void detach() { attach({}); }

  void wake() {
    const std::lock_guard lock(door_->mutex);
    if (door_->open && post_) post_();
  }

 private:
  std::shared_ptr<Door> door_;
  std::function<void()> post_;
};

}  // namespace millrace
