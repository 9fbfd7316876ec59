#pragma once

#include <cstddef>

#include "millrace/batch.h"

namespace millrace::detail {

/// Whoever calls a stage completes what it pushes, the host as well as the test kit: during a call
/// with a batch, what brings no receipt shares that of the batch, and what has no watermark has
/// that of the batch. No part of the ABI: neither a plugin nor the host gives one to the other.
class Completion {
 public:
  /// What is pushed from now on comes from `input`, which outlives that (null: from nothing in
  /// particular).
  void begin(const BatchBase* input) {
    input_ = input;
    pushed_ = 0;
  }
  /// Batches pushed since `begin`.
  [[nodiscard]] std::size_t pushed() const { return pushed_; }

  void complete(BatchBase& batch) {
    ++pushed_;
    if (input_ == nullptr) return;
    if (!batch.receipt) batch.receipt = input_->receipt.fork();
    if (batch.watermark == kNoTime) batch.watermark = input_->watermark;
  }

 private:
  const BatchBase* input_ = nullptr;
  std::size_t pushed_ = 0;
};

}  // namespace millrace::detail
