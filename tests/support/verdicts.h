#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "millrace/verdict.h"

namespace millrace::testing {

/// Of a session with this id and as many packets; without a label if that is empty.
inline Verdict verdict(std::uint16_t id, std::string_view label) {
  Verdict v;
  v.session.id[0] = static_cast<std::uint8_t>(id >> 8U);
  v.session.id[1] = static_cast<std::uint8_t>(id);
  v.session.key.protocol = 17;
  v.session.packets = id;
  v.label = label;
  v.label_index = label.empty() ? -1 : 3;
  v.model = label.empty() ? "" : "m";
  v.model_version = label.empty() ? "" : "7";
  v.confidence = label.empty() ? 0 : 0.5F;
  return v;
}

/// Ids from `first` on.
inline std::vector<Verdict> verdicts(std::uint16_t first, std::uint16_t count,
                                     std::string_view label) {
  std::vector<Verdict> rows;
  for (std::uint16_t i = 0; i < count; ++i) {
    rows.push_back(verdict(static_cast<std::uint16_t>(first + i), label));
  }
  return rows;
}

}  // namespace millrace::testing
