// Bytes as a pipeline file: everything must end in a report or a plan.

#include "config/pipeline_file.h"

#include <cstdint>

#include "graph/plan.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace millrace::host;
  Report report;
  Registry registry({});
  const PipelineSpec spec = read_pipeline_text(
      "fuzz.toml", {reinterpret_cast<const char*>(data), size}, Variables(), {}, report);
  (void)make_plan(spec, registry, report);
  (void)report.text();
  return 0;
}
