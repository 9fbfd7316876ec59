#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace millrace {

/// Threads that parse bodies: started when they are needed, at most `most`, and kept.
class ParserPool {
 public:
  explicit ParserPool(std::size_t most) : most_(most) {}
  ~ParserPool() { stop(); }
  ParserPool(const ParserPool&) = delete;
  ParserPool& operator=(const ParserPool&) = delete;

  /// `task` must not throw. Throws std::system_error if the system gives no first thread.
  void start(std::function<void()> task);
  /// Waits for the tasks that run; those that wait are run too. Whoever calls this has made sure
  /// that they end.
  void stop();

 private:
  void work();

  const std::size_t most_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  std::vector<std::thread> threads_;
  std::size_t idle_ = 0;
  bool stopping_ = false;
};

}  // namespace millrace
