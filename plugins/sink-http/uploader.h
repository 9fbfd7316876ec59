#pragma once

#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "millrace/context.h"

#include "http_client.h"
#include "seldom.h"
#include "spool.h"

namespace millrace {

/// The threads that send chunks. They block all signals, and no exception leaves them.
class Uploader {
 public:
  /// Throws ConfigError, see HttpClient.
  Uploader(const UploadOptions& options, Context& context, Spool& spool);
  ~Uploader() { stop(); }
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;

  void start();
  /// Breaks off what is under way; within about a second.
  void stop() noexcept;

 private:
  void run(HttpClient& client, const std::stop_token& stop) noexcept;
  void upload(HttpClient& client, Chunk& chunk, const std::stop_token& stop);
  Answer send(HttpClient& client, Chunk& chunk, int file, const std::stop_token& stop);
  void tell(const Chunk& chunk, const Answer& answer);

  Context& context_;
  Condition& server_;  ///< takes uploads
  Spool& spool_;
  std::vector<std::unique_ptr<HttpClient>> clients_;

  std::mutex mutex_;
  Seldom tell_rejected_{std::chrono::seconds(10)};

  std::vector<std::jthread> threads_;  ///< last: they use all of the above
};

}  // namespace millrace
