#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "millrace/session.h"

namespace millrace {

/// How a session becomes a model's input; part of the model's card.
struct FeatureSpec {
  std::uint32_t bytes = 784;
  Layer layer = Layer::l7;
  std::uint8_t padding = 0;
  /// Packets with a smaller transport payload are left out. 2 leaves out TCP keep-alives with their
  /// one stray byte, as SplitCap does.
  std::uint32_t min_payload = 1;
  bool fragments = true;  ///< whether parts of fragmented IP packets are used
};

/// Writes the first `spec.bytes` bytes of the session's packets, joined in arrival order from
/// `spec.layer` on, without reassembly; what is left over is padding. Returns how many bytes came
/// from packets. `out.size()` must be spec.bytes, and `session.layer` not above spec.layer.
///
/// The rule reproduces the published preprocessing of USTC-TFC2016 (Wang et al., ICOIN 2017) byte
/// for byte with layer l7, min_payload 2 and fragments off.
std::size_t extract_features(const Session& session, const FeatureSpec& spec,
                             std::span<std::uint8_t> out) noexcept;

}  // namespace millrace
