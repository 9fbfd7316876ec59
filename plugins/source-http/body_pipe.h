#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "byte_source.h"
#include "wakeup.h"

namespace millrace {

/// How an upload ended. `cut`: the client went away or was too slow.
enum class Ending : std::uint8_t { ok, bad, too_large, unavailable, cut };

/// Why an upload does not end well; what() is the reason that the client is told.
class UploadError : public std::runtime_error {
 public:
  UploadError(Ending ending, const std::string& reason)
      : std::runtime_error(reason), ending_(ending) {}
  [[nodiscard]] Ending ending() const noexcept { return ending_; }

 private:
  Ending ending_;
};

/// Carries a body from its connection, which must never block, to its parser, which may. Holds at
/// most `capacity` bytes and one block.
class BodyPipe {
 public:
  BodyPipe(std::size_t capacity, std::shared_ptr<Wakeup> wakeup)
      : capacity_(capacity), wakeup_(std::move(wakeup)) {}

  // The connection's end. It is woken when there is room again.
  [[nodiscard]] bool has_room() const;
  void write(std::vector<std::byte> block);
  /// The body has come to its end.
  void end();

  /// The reader gets this error from now on, whatever has come. Any thread; the first one counts.
  void fail(const UploadError& error);

  [[nodiscard]] bool failed() const;

  /// Fills `to` unless the body ends first. Throws what `fail` was given.
  std::size_t read(std::span<std::byte> to);
  [[nodiscard]] std::uint64_t taken() const;

 private:
  const std::size_t capacity_;
  const std::shared_ptr<Wakeup> wakeup_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::vector<std::byte>> blocks_;
  std::size_t at_ = 0;  ///< read of the first block
  std::size_t held_ = 0;
  std::uint64_t taken_ = 0;
  bool ended_ = false;
  std::optional<UploadError> error_;
};

/// The reader's end as a stream. `pipe` must outlive it.
class PipeSource final : public ByteSource {
 public:
  explicit PipeSource(BodyPipe& pipe) : pipe_(pipe) {}
  std::size_t read(std::span<std::byte> to) override { return pipe_.read(to); }
  [[nodiscard]] std::uint64_t raw_position() const override { return pipe_.taken(); }

 private:
  BodyPipe& pipe_;
};

}  // namespace millrace
