#include "testfile/test_keys.h"

#include <algorithm>

namespace millrace::host {

const std::vector<OptionSpec>& common_specs() {
  static const std::vector<OptionSpec> kSpecs = {
      option<&Keys::pipeline>("pipeline", "a pipeline file, relative to the test file"),
      option<&Keys::needs>("needs", "plugins without which it is skipped"),
      option<&Keys::timeout>("timeout", "how long it may take").at_least(Duration(1))};
  return kSpecs;
}

const std::vector<OptionSpec>& test_specs() {
  static const std::vector<OptionSpec> kSpecs = [] {
    std::vector<OptionSpec> list = common_specs();
    list.push_back(option<&Keys::name>("name", "what it shows").required());
    list.push_back(option<&Keys::stages>("stages", "under test: \"A..B\" or a list of names"));
    list.push_back(option<&Keys::fails>("fails", "it must fail, with this text in the error"));
    return list;
  }();
  return kSpecs;
}

const std::vector<OptionSpec>& InputKeys::specs() {
  static const std::vector<OptionSpec> kList = {
      option<&InputKeys::at>("at", "the stage that it goes into").required(),
      option<&InputKeys::use>("use", "a source of a plugin, with its options beside it"),
      option<&InputKeys::capture>("capture", "capture files, relative to the test file"),
      option<&InputKeys::batch>("batch", "items that come together").between(1, 1U << 20U)};
  return kList;
}

const std::vector<OptionSpec>& StubKeys::specs() {
  static const std::vector<OptionSpec> kList = {
      option<&StubKeys::stage>("stage", "the stage that it stands in for").required(),
      option<&StubKeys::use>("use", "a plugin's stage, with its options beside it"),
      option<&StubKeys::pass>("pass", "give on what comes"),
      option<&StubKeys::fail>("fail", "calls that fail for a passing reason, before the others"),
      option<&StubKeys::error>("error", "fail for good at the first item, with this text")};
  return kList;
}

const std::vector<OptionSpec>& ExpectKeys::specs() {
  static const std::vector<OptionSpec> kList = {
      option<&ExpectKeys::after>("after", "the stage whose output is meant"),
      option<&ExpectKeys::at>("at", "the stage whose input is meant"),
      option<&ExpectKeys::file>("file", "a file that the pipeline wrote"),
      option<&ExpectKeys::ordered>("ordered", "the items come in this order"),
      option<&ExpectKeys::tolerance>("tolerance", "how far a number may be off, as a share of it")
          .between(0, 1),
      option<&ExpectKeys::contains>("contains", "texts that stand in the file")};
  return kList;
}

std::vector<std::string> names_of(const std::vector<OptionSpec>& specs) {
  std::vector<std::string> names;
  names.reserve(specs.size());
  for (const OptionSpec& spec : specs) names.push_back(spec.name);
  return names;
}

bool among(std::string_view name, const std::vector<std::string>& names) {
  return std::ranges::find(names, name) != names.end();
}

ConfigValue::Table without(const ConfigValue::Table& table, const std::vector<std::string>& inner) {
  ConfigValue::Table plain;
  for (const ConfigEntry& entry : table) {
    if (!among(entry.key, inner)) plain.push_back(entry);
  }
  return plain;
}

}  // namespace millrace::host
