#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "millrace/context.h"

#include "access.h"
#include "answer.h"
#include "options.h"
#include "parser_pool.h"
#include "upload.h"
#include "wakeup.h"

namespace millrace {

/// What the connections of one server have in common. Any thread.
class Hub {
 public:
  Hub(const HttpOptions& options, Context& context);

  const HttpOptions options;
  const std::shared_ptr<Door> door = std::make_shared<Door>();
  const Upload::Services services;
  ParserPool parsers;
  std::atomic<std::uint32_t> connections{0};
  std::atomic<bool> draining{false};
  /// The time to finish is over.
  std::atomic<bool> over{false};

  [[nodiscard]] const std::optional<Tokens>& tokens() const { return tokens_; }
  [[nodiscard]] Upload::Settings upload_settings() const;

  /// One of `max_uploads` places; held from the headers to the answer.
  class Place {
   public:
    explicit Place(Hub& hub);
    ~Place();
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;
    explicit operator bool() const { return taken_; }

   private:
    Hub& hub_;
    bool taken_;
  };
  [[nodiscard]] std::uint32_t uploads() const { return uploads_; }

  /// Has the upload given up with all others when the time is over.
  void watch(const std::shared_ptr<Upload>& upload);
  /// Ends all uploads that are still under way.
  void give_up_all();

  void connected() { connected_->add(); }
  /// Counts the answer and writes refusals to the log, not too many a second.
  void record(const Answer& answer, const UploadResult* result, const std::string& peer,
              const Origin* origin);
  void warn(const std::string& message);

 private:
  Context& context_;
  std::optional<Tokens> tokens_;
  std::array<Counter*, kUploadCounts> counts_{};
  Counter* packets_;
  Counter* bytes_;
  Counter* connected_;
  Counter* truncated_;
  std::atomic<std::uint32_t> uploads_{0};

  std::mutex mutex_;
  std::vector<std::weak_ptr<Upload>> watched_;

  std::mutex log_mutex_;
  std::chrono::steady_clock::time_point log_second_;
  std::uint64_t logged_ = 0;
};

}  // namespace millrace
