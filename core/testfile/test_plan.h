#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graph/plan.h"
#include "plugin/registry.h"
#include "testfile/test_file.h"

namespace millrace::host {

/// A test that can be run: the pipeline with what stands in for the rest of it.
struct TestPlan {
  std::unique_ptr<PluginBody> stand_ins;  ///< the plan points into it
  Plan plan;
  /// By the number of the expectation; null where nothing has to be looked at.
  std::vector<std::shared_ptr<Recording>> recordings;
};

/// Cuts the stages under test out of the pipeline, puts inputs, stubs and recorders in their
/// places, and plans the whole as any pipeline is planned. All problems go to `report`, which must
/// have the test file as its source 0; the plan may be run only if it is empty.
[[nodiscard]] TestPlan make_test_plan(const TestFile& file, const Test& test, Registry& registry,
                                      Report& report);

/// Why the test cannot run here although nothing is wrong with it; empty if it can.
[[nodiscard]] std::string reason_to_skip(const Test& test, Registry& registry);

}  // namespace millrace::host
