#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "millrace/plugin.h"

#include "config/value.h"
#include "testfile/items.h"

namespace millrace::host {

/// What came by at one place of a pipeline under test. Any thread.
class Recording {
 public:
  /// Beyond so many items they are only counted.
  static constexpr std::size_t kMost = 50'000;

  void add(const BatchBase& batch);
  [[nodiscard]] std::vector<std::string> items() const;  ///< as JSON, in the order they came
  [[nodiscard]] std::uint64_t count() const;

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> items_;
  std::uint64_t count_ = 0;
};

/// What a stub does with what it is given. Shared by its instances.
struct StubBehaviour {
  enum class Kind : std::uint8_t { swallow, pass, label, give };
  struct Rule {
    ConfigValue::Table when;  ///< fields of a session; empty: every session
    Label label;
  };

  Kind kind = Kind::swallow;
  std::vector<Rule> rules;                ///< for `label`: the first that fits
  std::shared_ptr<const ItemList> items;  ///< for `give`, when the input has ended
  std::optional<ConfigValue> reject;      ///< fields of items that are rejected
  std::string error;                      ///< not empty: it fails for good at the first item
  std::atomic<std::uint32_t> fail{0};     ///< calls that are still to fail for a passing reason
  std::atomic<bool> given{false};
};

/// Stages that stand in for what is outside of a test, as a plugin offers them.
[[nodiscard]] StageDescriptor items_source(std::string name, std::shared_ptr<const ItemList> items);
[[nodiscard]] StageDescriptor recorder(std::string name, const ItemType& type,
                                       std::shared_ptr<Recording> recording);
/// `out`: null for a sink.
[[nodiscard]] StageDescriptor stub(std::string name, const ItemType& in, const ItemType* out,
                                   std::shared_ptr<StubBehaviour> behaviour);

}  // namespace millrace::host
