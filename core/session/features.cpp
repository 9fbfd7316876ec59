#include "millrace/features.h"

#include <algorithm>
#include <cstring>

namespace millrace {

std::size_t extract_features(const Session& session, const FeatureSpec& spec,
                             std::span<std::uint8_t> out) noexcept {
  std::size_t filled = 0;
  for (const SessionPacket& packet : session.packets) {
    if (filled == out.size()) break;
    if (packet.fragment && !spec.fragments) continue;
    if (packet.from(Layer::l7).size() < spec.min_payload) continue;
    const std::span<const std::byte> bytes = packet.from(spec.layer);
    const std::size_t take = std::min(bytes.size(), out.size() - filled);
    if (take != 0) std::memcpy(out.data() + filled, bytes.data(), take);
    filled += take;
  }
  std::fill(out.begin() + static_cast<std::ptrdiff_t>(filled), out.end(), spec.padding);
  return filled;
}

}  // namespace millrace
