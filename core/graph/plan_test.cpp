#include "graph/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace::host {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(PlanTest, SectionOfAPluginThatIsNotInstalledIsAWarning) {
  Report report;
  const PipelineSpec spec = read_pipeline_text("p.toml",
                                               "[stage.a]\n"
                                               "use = \"good.source\"\n"
                                               "[stage.a.wrong-abbi]\n"
                                               "x = 1\n"
                                               "[stage.a.wrong-abi]\n"
                                               "x = 1\n"
                                               "[stage.b]\n"
                                               "use = \"good\"\n"
                                               "from = \"a\"\n"
                                               "[stage.b.far-from-all]\n",
                                               Variables(), {{"b.no-symbl.x=1"}}, report);
  Registry registry({MILLRACE_TEST_PLUGINS});
  const Plan plan = make_plan(spec, registry, report);
  EXPECT_TRUE(report.empty()) << report.text();
  EXPECT_EQ(plan.stages.size(), 2U);
  EXPECT_EQ(report.warnings().size(), 3U);
  EXPECT_THAT(report.text(),
              AllOf(HasSubstr("p.toml:3:10: warning: there is no plugin 'wrong-abbi' here, so this "
                              "section is not looked at\n    3 | [stage.a.wrong-abbi]"),
                    HasSubstr("did you mean 'wrong-abi'?"),
                    HasSubstr("p.toml:10:10: warning: there is no plugin 'far-from-all' here"),
                    HasSubstr("--set b.no-symbl.x"), HasSubstr("did you mean 'no-symbol'?"),
                    Not(HasSubstr("no plugin 'wrong-abi' "))));
}

TEST(PlanTest, PluginThatIsNotInstalledIsNotTakenForAnotherOfItsKind) {
  Report report;
  // As a whole it is near "wrong-abi"; without what is common to both it is not.
  const PipelineSpec spec = read_pipeline_text("p.toml",
                                               "[stage.a]\n"
                                               "use = \"wrong-abcd\"\n"
                                               "x = 1\n"
                                               "[stage.a.wrong-abcd]\n",
                                               Variables(), {}, report);
  Registry registry({MILLRACE_TEST_PLUGINS});
  (void)make_plan(spec, registry, report);
  EXPECT_EQ(report.size(), 1U) << report.text();
  EXPECT_THAT(report.text(),
              AllOf(HasSubstr("there is no plugin 'wrong-abcd'"), Not(HasSubstr("did you mean"))));
}

}  // namespace
}  // namespace millrace::host
