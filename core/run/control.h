#pragma once

#include <cstddef>
#include <string_view>

namespace millrace::host {

/// The pipeline's end of the line to its supervisor, a socket of whole messages (SOCK_SEQPACKET).
/// When the supervisor goes away, the line hangs up, and the pipeline ends as by SIGTERM. Any
/// thread.
class Control {
 public:
  /// `metrics_part`: more of it follows.
  enum class Message : char {
    counts = 'C',
    error = 'E',
    health = 'H',
    metrics_part = 'm',
    metrics = 'M'
  };

  /// Bytes of a text that go through; well below what a socket takes as one message.
  static constexpr std::size_t kLongest = 64 * 1024;

  explicit Control(int descriptor) noexcept : descriptor_(descriptor) {}

  /// To poll for POLLHUP.
  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }
  /// The counts of every stage, as JSON; the first of them says that every stage is open. Left out
  /// if the supervisor does not read: newer ones follow.
  void counts(std::string_view json) const noexcept { send(Message::counts, json); }
  /// What --admin answers in an unsupervised run.
  void health(std::string_view json) const noexcept { send(Message::health, json); }
  void metrics(std::string_view text) const noexcept;
  /// Why this pipeline does not run, for the status that operators see.
  void error(std::string_view text) const noexcept { send(Message::error, text); }

 private:
  /// False if it has not gone through.
  bool send(Message kind, std::string_view text) const noexcept;
  int descriptor_;
};

}  // namespace millrace::host
