#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/pipeline_file.h"
#include "graph/plan.h"

namespace millrace::host {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string many(std::size_t count, std::string_view text) {
  std::string all;
  for (std::size_t i = 0; i < count; ++i) all += text;
  return all;
}

std::string errors(const std::string& text, const std::vector<Setting>& settings = {}) {
  Report report;
  Registry registry({});
  const PipelineSpec spec = read_pipeline_text("p.toml", text, Variables(), settings, report);
  (void)make_plan(spec, registry, report);
  return report.text();
}

TEST(HostileTextTest, ADeepPipelineFileIsAnErrorWithAPlace) {
  for (const std::string& text : {many(50000, "a.") + "a = 1\n", '[' + many(50000, "a.") + "a]\n",
                                  "a = " + many(50000, "["), "a = " + many(50000, "{a = "),
                                  "[" + many(60, "a.") + "a]\n" + many(60, "a.") + "a = 1\n"}) {
    EXPECT_THAT(errors("[pipeline]\n" + text),
                AllOf(StartsWith("p.toml:"), HasSubstr("nested deeper than 64 levels")));
  }
}

TEST(HostileTextTest, ADeepLineBehindOneThatCannotBeReadIsFoundToo) {
  // What is left out may have been the beginning of a text that held it.
  EXPECT_THAT(errors("a = '''\x01\n" + many(50000, "a.") + "a = 1\n'''\n"),
              HasSubstr("nested deeper than 64 levels"));
}

TEST(HostileTextTest, ADeepSettingIsAnError) {
  EXPECT_THAT(errors("[stage.a]\nuse = 'b'\n", {{"a.b=" + many(50000, "[")}}),
              HasSubstr("the value is nested deeper than 64 levels"));
}

TEST(HostileTextTest, OfManyErrorsTheFirstAreShown) {
  std::string text = "[stage.a]\nuse = 'x-y'\n";
  for (int i = 0; i < 100000; ++i) text += "[other" + std::to_string(i) + "]\n";
  const std::string report = errors(text);
  EXPECT_LT(report.size(), 100000U);
  EXPECT_THAT(report, HasSubstr("... and 99901 more\n"));
}

}  // namespace
}  // namespace millrace::host
