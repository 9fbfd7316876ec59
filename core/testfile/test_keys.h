#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/option.h"

#include "config/value.h"
#include "testfile/compare.h"

namespace millrace::host {

/// The plain keys of a [[test]], and those that the file may have above all tests.
struct Keys {
  std::string name{};
  std::string pipeline{};
  std::vector<std::string> stages{};
  std::vector<std::string> needs{};
  Duration timeout = std::chrono::seconds(60);
  std::optional<std::string> fails{};
};

[[nodiscard]] const std::vector<OptionSpec>& common_specs();
[[nodiscard]] const std::vector<OptionSpec>& test_specs();

struct InputKeys {
  std::string at{}, use{};
  std::vector<std::string> capture{};
  std::uint32_t batch = 256;

  static const std::vector<OptionSpec>& specs();
};

struct StubKeys {
  std::string stage{}, use{}, error{};
  bool pass = false;
  std::uint32_t fail = 0;

  static const std::vector<OptionSpec>& specs();
};

struct ExpectKeys {
  std::string after{}, at{}, file{};
  bool ordered = false;
  double tolerance = kTolerance;
  std::vector<std::string> contains{};

  static const std::vector<OptionSpec>& specs();
};

[[nodiscard]] std::vector<std::string> names_of(const std::vector<OptionSpec>& specs);
[[nodiscard]] bool among(std::string_view name, const std::vector<std::string>& names);
/// Entries whose key is not in `inner`.
[[nodiscard]] ConfigValue::Table without(const ConfigValue::Table& table,
                                         const std::vector<std::string>& inner);

}  // namespace millrace::host
