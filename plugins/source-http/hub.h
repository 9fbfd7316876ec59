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
#include "connections.h"
#include "options.h"
#include "parser_pool.h"
#include "refusals.h"
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
  Connections connections{options};
  /// Connections that are being told that there is no room.
  std::atomic<std::uint32_t> turned_away{0};
  std::atomic<bool> draining{false};
  /// The time to finish is over.
  std::atomic<bool> over{false};

  [[nodiscard]] const std::optional<Tokens>& tokens() const { return tokens_; }
  [[nodiscard]] Upload::Settings upload_settings() const;

  /// A request for an upload, from its headers to the answer. Its connection is not closed to make
  /// room for others while `good`.
  class Request {
   public:
    Request(Hub& hub, Connections::Line& line);
    ~Request();
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;
    [[nodiscard]] bool good() const { return good_; }
    /// One of `max_uploads` places.
    [[nodiscard]] bool take_place();
    /// It may wait for another upload; there is a bound to those who do.
    [[nodiscard]] bool may_wait();
    /// Only the answer is to come, and may have to make room.
    void refused();

   private:
    Hub& hub_;
    Connections::Line& line_;
    bool good_;
    bool place_ = false;
    bool waits_ = false;
  };
  [[nodiscard]] std::uint32_t uploads() const { return uploads_; }

  /// Why no uploads can be taken at present; empty: they can.
  [[nodiscard]] std::string unavailable() const;
  /// Now and then: tells the log and the host what has changed.
  void look();
  /// At the end: what became of uploads in all.
  void sum_up();

  /// Has the upload given up with all others when the time is over.
  void watch(const std::shared_ptr<Upload>& upload);
  /// Ends all uploads that are still under way.
  void give_up_all();

  void connected() { connected_->add(); }
  /// Counts the answer and writes refusals to the log, many of a kind as one.
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
  Counter* differing_;
  Condition* places_;
  Condition* next_stage_;
  Refusals refusals_;
  std::atomic<std::uint32_t> uploads_{0};
  std::atomic<std::uint32_t> waiting_{0};

  std::mutex mutex_;
  std::vector<std::weak_ptr<Upload>> watched_;

  std::mutex log_mutex_;
  std::chrono::steady_clock::time_point log_second_;
  std::uint64_t logged_ = 0;
};

}  // namespace millrace
