#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/pipeline_file.h"
#include "config/report.h"
#include "config/toml.h"
#include "testfile/compare.h"
#include "testfile/items.h"
#include "testfile/stand_ins.h"

namespace millrace::host {

/// What comes in place of something outside of the test: a plugin's stage, or items.
struct StandIn {
  Position at;
  std::string stage;  ///< of the pipeline: where it stands, or what it replaces
  Position stage_at;
  std::string use;  ///< not empty: a plugin's stage, with `options`
  Position use_at;
  ConfigValue::Table options;
  std::shared_ptr<const ItemList> items;  ///< null with `use`, or if they could not be read
};

struct TestStub : StandIn {
  std::shared_ptr<StubBehaviour> behaviour;  ///< null with `use`
  bool says_what = false;  ///< labels, items or `pass`; else it depends on its place
};

struct Expectation {
  enum class Where : std::uint8_t { after, at, file };
  Position at;
  Where where = Where::after;
  std::string stage;  ///< or the file's path
  Position stage_at;
  std::optional<ConfigValue> count;
  ConfigValue::List items;
  ConfigValue::List none;
  std::vector<std::string> contains;  ///< only of a file
  bool ordered = false;
  double tolerance = kTolerance;
  /// Of the stage's account: rejected, retried, failed.
  ConfigValue::Table numbers;
  ConfigValue::Table dropped;
  ConfigValue::Table counters;
};

/// One [[test]], with what the file says for all of them.
struct Test {
  std::string name;
  Position at;
  std::filesystem::path pipeline;  ///< empty: the stages stand in the test file
  Position pipeline_at;
  std::vector<std::string> stages;  ///< empty: what the inputs reach, or all
  Position stages_at;
  std::map<std::string, std::string> variables;
  std::map<std::string, std::string> config;
  std::vector<Setting> settings;
  std::vector<std::string> needs;
  Duration timeout = std::chrono::seconds(60);
  std::optional<std::string> fails;
  std::vector<StandIn> inputs;
  std::vector<TestStub> stubs;
  std::vector<Expectation> expectations;
};

struct TestFile {
  std::filesystem::path path;
  std::string text;
  std::vector<Test> tests;
};

/// What a test file finds around it.
struct TestSurroundings {
  std::map<std::string, std::string> given;  ///< --var: before the file's own
  std::vector<Setting> settings;             ///< --set: after the file's own
  std::filesystem::path folder;              ///< ${TMP}
};

/// Reads a [[test.expect]]; nothing if it cannot be said of what it is. `folder` is where the paths
/// of files begin.
[[nodiscard]] std::optional<Expectation> read_expectation(const ConfigValue::Table& table,
                                                          Position at,
                                                          const std::filesystem::path& folder,
                                                          Report& report);

/// Reads a test file (docs/testing.md). Whatever is wrong goes to `report`, where the file is
/// source 0 if the report was empty.
[[nodiscard]] TestFile read_test_file(const std::filesystem::path& path,
                                      const TestSurroundings& surroundings, Report& report);

}  // namespace millrace::host
