#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "run/admin.h"

namespace millrace::host {

/// Something that keeps a pipeline from its work.
struct Trouble {
  using Time = std::chrono::steady_clock::time_point;

  std::string stage{};  ///< empty: the pipeline as a whole
  std::string what{};
  Time since{};
  bool at_once = false;    ///< not ready without any grace
  bool tolerated = false;  ///< of a stage that is not required
};

/// What GET /health answers.
struct Health {
  static constexpr std::string_view kStarting = "starting";
  static constexpr std::string_view kRunning = "running";
  static constexpr std::string_view kPaused = "paused";  ///< by its configuration
  static constexpr std::string_view kDraining = "draining";
  static constexpr std::string_view kFailed = "failed";

  std::string pipeline{};
  std::string status{kStarting};
  std::vector<Trouble> reasons{};   ///< why it is not ready
  std::vector<Trouble> degraded{};  ///< what does not work, but does not (yet) make it not ready

  [[nodiscard]] bool ready() const { return status == kRunning && reasons.empty(); }
  /// Puts it where it belongs: `reasons` if it has lasted longer than `blocked`.
  void add(Trouble trouble, std::chrono::milliseconds blocked);
  /// Why it is not ready, in one line; empty if it is.
  [[nodiscard]] std::string why() const;
  /// `more`: members, as JSON, that follow.
  [[nodiscard]] std::string json(std::string_view more = {}) const;
  [[nodiscard]] Admin::Readiness readiness() const { return {ready(), json()}; }
};

}  // namespace millrace::host
