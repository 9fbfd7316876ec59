#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "millrace/session.h"

namespace millrace {

/// What a model says of a session. The views are in the batch's storage.
struct Verdict {
  SessionInfo session;
  std::string_view label;  ///< empty: no model has seen the session
  std::string_view model;
  std::string_view model_version;
  std::int32_t label_index = -1;  ///< of the most probable class, also where the label is "unknown"
  float confidence = 0;           ///< probability of that class
  std::span<const float> probabilities;      ///< by label index; empty unless asked for
  std::span<const std::string> class_names;  ///< by label index; may be empty
};

template <>
struct ItemTraits<Verdict> {
  static constexpr std::string_view name = "millrace.Verdict";
  /// The object that every sink writes, its members under their documented names and in their
  /// documented order (plugins/sink-file/README.md).
  static void describe(const Verdict& verdict, std::string& json);
};

/// For sinks that take sessions as well: verdicts without a label. Watermark, receipt and storage
/// move along.
[[nodiscard]] Batch<Verdict> unlabelled(Batch<Session>& sessions);

}  // namespace millrace
