#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "millrace/batch.h"

#include "config/report.h"
#include "config/value.h"

namespace millrace::host {

/// Items that a test file writes out, as the batches in which they are given.
struct ItemList {
  const ItemType* type = nullptr;
  std::vector<BoxedBatch> batches;
};

/// When the times that a test file gives begin.
inline constexpr Timestamp kTestBegin =
    std::chrono::sys_days(std::chrono::year(2024) / std::chrono::January / 1);

/// The keys that hold items: "packets", "sessions", ...
[[nodiscard]] const std::vector<std::string>& item_keys();

/// Reads `entry`, whose key is one of item_keys, into batches of `batch` items. What is wrong goes
/// to `report`; then the result is not to be used.
[[nodiscard]] std::shared_ptr<const ItemList> read_items(const ConfigEntry& entry,
                                                         std::size_t batch, Report& report);

/// What a stub says of a session.
struct Label {
  std::string label = "unknown";
  std::string model = "stub";
  std::string model_version = "1";
  std::int32_t label_index = -1;
  double confidence = 1;
};
[[nodiscard]] const std::vector<OptionSpec>& label_specs();

/// The names of the fields of an item of the core's types, none for another type.
[[nodiscard]] std::vector<std::string> field_names(const ItemType& type);

}  // namespace millrace::host
