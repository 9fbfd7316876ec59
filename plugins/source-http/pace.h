#pragma once

#include <chrono>
#include <cstdint>

#include "millrace/time.h"

namespace millrace {

/// Whether a body comes fast enough: `quantum` bytes in every `window` in which it is read.
class Pace {
 public:
  Pace(Duration window, std::uint64_t rate)
      : window_(window),
        quantum_(static_cast<std::uint64_t>(static_cast<double>(rate) *
                                            std::chrono::duration<double>(window).count())) {
    restart();
  }

  [[nodiscard]] std::chrono::steady_clock::time_point deadline() const { return deadline_; }
  void received(std::uint64_t bytes) {
    got_ += bytes;
    if (got_ != 0 && got_ >= quantum_) restart();
  }
  /// Time that the client is not to blame for.
  void excuse(std::chrono::steady_clock::duration time) { deadline_ += time; }

 private:
  void restart() {
    got_ = 0;
    deadline_ = std::chrono::steady_clock::now() + window_;
  }

  Duration window_;
  std::uint64_t quantum_;
  std::uint64_t got_ = 0;
  std::chrono::steady_clock::time_point deadline_;
};

}  // namespace millrace
