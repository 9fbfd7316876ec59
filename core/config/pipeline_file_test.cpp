#include "config/pipeline_file.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "graph/plan.h"

namespace millrace::host {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct Read {
  Report report;
  PipelineSpec spec;
};

Read read(const std::string& text, const std::map<std::string, std::string>& variables = {},
          const std::vector<Setting>& settings = {}) {
  Read result;
  result.spec = read_pipeline_text("p.toml", text, Variables(variables), settings, result.report);
  return result;
}

TEST(PipelineFileTest, ReadsStagesInOrderWithHostKeys) {
  const Read r = read(R"([pipeline]
name = "x"
[stage.zeta]
use = "source-pcap"
file = "a"
[stage.alpha]
use = "split-memory"
from = ["zeta"]
workers = 3
required = false
queue = { batches = 4, bytes = "1MiB", when_full = "drop-oldest" }
on_reject = { file = "dead.jsonl" }
)");
  ASSERT_TRUE(r.report.empty()) << r.report.text();
  ASSERT_EQ(r.spec.stages.size(), 2U);
  EXPECT_EQ(r.spec.stages[0].name, "zeta");
  const HostOptions& host = r.spec.stages[1].host;
  EXPECT_EQ(host.workers, 3U);
  EXPECT_FALSE(host.required);
  EXPECT_EQ(host.queue->batches, 4U);
  EXPECT_EQ(host.queue->when_full, WhenFull::drop_oldest);
  EXPECT_EQ(host.on_reject, OnReject::file);
  EXPECT_EQ(r.spec.stages[0].options.at(0).key, "file");
}

TEST(PipelineFileTest, TableOfTextsTakesDottedKeysNumbersAndSettings) {
  struct Options {
    std::map<std::string, std::string> kafka;
  };
  const Read r = read(R"([stage.changes]
use = "x"
kafka.security.protocol = "ssl"
kafka."linger.ms" = 5
kafka.acks = true
kafka.ratio = 0.5
kafka."sasl.mechanism" = "GSSAPI"
)",
                      {}, {{"changes.kafka.sasl.mechanism=PLAIN"}, {"changes.kafka.retries=3"}});
  ASSERT_TRUE(r.report.empty()) << r.report.text();
  const std::vector<OptionSpec> specs = {option<&Options::kafka>("kafka", "properties")};
  Options options;
  Report report = r.report;
  EXPECT_TRUE(bind_options(r.spec.stages.at(0).options, specs, &options, "stage 'changes'", {}, {},
                           true, report))
      << report.text();
  EXPECT_EQ(options.kafka, (std::map<std::string, std::string>{{"security.protocol", "ssl"},
                                                               {"linger.ms", "5"},
                                                               {"acks", "true"},
                                                               {"ratio", "0.5"},
                                                               {"sasl.mechanism", "PLAIN"},
                                                               {"retries", "3"}}));
}

TEST(PipelineFileTest, NothingOfABinaryFileReachesTheTerminal) {
  const Read r = read("[stage.a]\nuse = \"x\"\nfile = \"\x1b[31m\x07 \xc2\x9b\"\n\x01\x7f = 1\n");
  const std::string text = r.report.text();
  EXPECT_THAT(text, HasSubstr("p.toml:3:"));
  for (const char c : text) {
    EXPECT_TRUE(c == '\n' || c == '\t' || (static_cast<unsigned char>(c) >= 0x20 && c != '\x7f'))
        << static_cast<int>(c);
  }
  EXPECT_EQ(text.find("\xc2\x9b"), std::string::npos);
}

TEST(PipelineFileTest, SuggestsNothingSilly) {
  const Read r =
      read("[stage.a]\nuse = \"x\"\non_reject = \"file\"\n[conf]\n[stage.b]\nuse = 3x\n");
  EXPECT_THAT(r.report.text(), HasSubstr("or { file = "));
  EXPECT_THAT(r.report.text(), HasSubstr("expected [pipeline], [config] or [stage.NAME]"));
  EXPECT_EQ(r.report.text().find("did you mean 'file'"), std::string::npos) << r.report.text();
  EXPECT_EQ(r.report.text().find("error: Error"), std::string::npos) << r.report.text();
}

TEST(PipelineFileTest, EveryMistakeIsReportedInOneGo) {
  const Read r = read(R"([pipeline]
nmae = "x"
[stage.a]
use = 5
from = 7
workers = 0
queue = { batch = 1 }
on_reject = "stpo"
[stage."b c"]
[stages]
[config]
use = "config-zk"
broken = = 3
[stage.d]
workers = 3
)");
  const std::string text = r.report.text();
  EXPECT_EQ(r.report.size(), 9U) << text;
  EXPECT_THAT(text, HasSubstr("p.toml:2:1: error: [pipeline] has no key 'nmae'"));
  EXPECT_THAT(text, HasSubstr("did you mean 'name'?"));
  EXPECT_THAT(text, HasSubstr("p.toml:6:11: error: 0 cannot be 'workers'"));
  EXPECT_THAT(text,
              HasSubstr("    6 | workers = 0\n      |           ^\n      = expected 1 to 256"));
  EXPECT_THAT(text, HasSubstr("did you mean 'stop'?"));
  EXPECT_THAT(text, HasSubstr("p.toml:13:10: error: "));
}

TEST(PipelineFileTest, SubstitutesFromVariablesEnvironmentAndFiles) {
  ::setenv("MILLRACE_TEST_VARIABLE", "from the environment", 1);
  const auto secret = std::filesystem::temp_directory_path() / "millrace-test-secret";
  std::ofstream(secret) << "s3cret\n";
  const Read r = read(
      "[stage.a]\nuse = \"x\"\na = \"${A}\"\nb = \"1${B:-2}3\"\nc = \"${MILLRACE_TEST_VARIABLE}\"\n"
      "d = \"${file:" +
          secret.string() + "}\"\ne = \"$${A}\"\nf = \"${A:?wanted}\"\n",
      {{"A", "24"}});
  std::filesystem::remove(secret);
  ASSERT_TRUE(r.report.empty()) << r.report.text();
  const ConfigValue::Table& options = r.spec.stages.at(0).options;
  EXPECT_EQ(*find(options, "a")->value.text(), "24");
  EXPECT_TRUE(find(options, "a")->value.substituted);
  EXPECT_EQ(std::get<std::int64_t>(to_option_value(find(options, "a")->value, "integer").value),
            24);
  EXPECT_EQ(*find(options, "b")->value.text(), "123");
  EXPECT_EQ(*find(options, "c")->value.text(), "from the environment");
  EXPECT_EQ(*find(options, "d")->value.text(), "s3cret");
  EXPECT_EQ(*find(options, "e")->value.text(), "${A}");
}

TEST(PipelineFileTest, UnresolvedReferencesAreErrorsAtTheirPlace) {
  const Read r = read(
      "[stage.a]\nuse = \"x\"\na = \"one ${ABC} two\"\nb = \"${B:?set B}\"\nc = \"${x\"\n"
      "d = \"${file:/nonexistent}\"\ne = \"${config.key}\"\nf = \"${1}\"\n",
      {{"ABD", ""}});
  const std::string text = r.report.text();
  EXPECT_EQ(r.report.size(), 6U) << text;
  EXPECT_THAT(text,
              AllOf(HasSubstr("p.toml:3:10: error: variable 'ABC' is not set"),
                    HasSubstr("did you mean 'ABD'?"), HasSubstr("variable 'B' is not set: set B"),
                    HasSubstr("'${' is not closed"), HasSubstr("cannot read '/nonexistent'")));
}

TEST(PipelineFileTest, NoEnvLeavesReferencesOpen) {
  Variables variables;
  variables.leave_open();
  Report report;
  (void)read_pipeline_text("p.toml", "[stage.a]\nuse = \"x\"\na = \"${SECRET}\"\n", variables, {},
                           report);
  EXPECT_TRUE(report.empty()) << report.text();
}

TEST(PipelineFileTest, SettingsReplaceAndAdd) {
  const std::string text = "[stage.a]\nuse = \"x\"\nn = 1\n";
  const Read r = read(text, {}, {{"a.n=2"}, {"a.m=plain text"}, {"a.queue.batches=7"}});
  ASSERT_TRUE(r.report.empty()) << r.report.text();
  EXPECT_EQ(std::get<std::int64_t>(find(r.spec.stages[0].options, "n")->value.value), 2);
  EXPECT_EQ(*find(r.spec.stages[0].options, "m")->value.text(), "plain text");
  EXPECT_EQ(r.spec.stages[0].host.queue->batches, 7U);
  EXPECT_THAT(read(text, {}, {{"aa.n=2"}}).report.text(),
              HasSubstr("--set aa.n: error: there is no stage 'aa'"));
  EXPECT_THAT(read(text, {}, {{"nonsense"}}).report.text(), HasSubstr("expected stage.key=value"));
}

TEST(PipelineFileTest, BytesThatAreNoTomlNeverCrash) {
  for (const std::string text :
       {"\xff\xfe", "[stage", "[stage.a\nx = [1,\n", "a = \"", "\0x", "[[stage]]\n", "stage = 3",
        "[stage]\na = 1\n", "[pipeline]\npipeline.x = 1\n[pipeline]\n"}) {
    EXPECT_FALSE(read(text).report.empty());
  }
}

constexpr const char* kWithConfig = R"([config]
use = "good"
server = "${NAME:-here}"
[stage.a]
use = "x"
filter = "${config.filter}"
packets = "${config.inner.packets:-24}"
)";

TEST(ConfigSectionTest, ValuesAreLeftOpenUntilTheProviderHasGivenThem) {
  const Read r = read(kWithConfig);
  EXPECT_TRUE(r.report.empty()) << r.report.text();
  ASSERT_TRUE(r.spec.config);
  EXPECT_EQ(r.spec.config->use, "good");
  EXPECT_EQ(*r.spec.config->options.at(0).value.text(), "here");
  EXPECT_TRUE(r.spec.stages[0].options.at(0).value.unresolved);
}

TEST(ConfigSectionTest, ValuesOfTheProviderArePutIn) {
  Variables variables;
  variables.set_config({{"filter", "udp"}});
  Report report;
  const PipelineSpec spec = read_pipeline_text("p.toml", kWithConfig, variables, {}, report);
  EXPECT_TRUE(report.empty()) << report.text();
  EXPECT_EQ(*spec.stages[0].options.at(0).value.text(), "udp");
  EXPECT_EQ(*spec.stages[0].options.at(1).value.text(), "24");
}

TEST(ConfigSectionTest, MissingValuesAreErrorsAtTheirPlace) {
  Variables variables;
  variables.set_config({{"filtre", "udp"}});
  Report report;
  (void)read_pipeline_text("p.toml", kWithConfig, variables, {}, report);
  EXPECT_THAT(report.text(),
              AllOf(HasSubstr("p.toml:6:11: error: the config provider gives no value 'filter'"),
                    HasSubstr("did you mean 'filtre'?")));
}

TEST(ConfigSectionTest, ReferencesThatNobodyCanResolveAreErrors) {
  EXPECT_THAT(read("[stage.a]\nuse = \"x\"\nfilter = \"${config.filter}\"\n").report.text(),
              HasSubstr("p.toml:3:11: error: '${config.filter}' needs a [config] section"));
  EXPECT_THAT(read("[config]\nuse = \"good\"\nserver = \"${config.x}\"\n[stage.a]\nuse = \"x\"\n")
                  .report.text(),
              HasSubstr("p.toml:3:11: error: '${config.x}' is not known in [config]"));
}

TEST(ConfigSectionTest, OnlyAProviderCanProvide) {
  Registry registry({MILLRACE_TEST_PLUGINS});
  Report report;
  const PipelineSpec spec =
      read_pipeline_text("p.toml", "[config]\nuse = \"good\"\n", Variables(), {}, report);
  EXPECT_FALSE(make_provider_plan(spec, registry, report));
  EXPECT_THAT(report.text(), HasSubstr("p.toml:2:7: error: 'good' is no config provider"));
}

TEST(PlanTest, GraphMistakesAreFound) {
  Registry registry({MILLRACE_TEST_PLUGINS});
  Report report;
  const PipelineSpec spec = read_pipeline_text("p.toml", R"([stage.a]
use = "good"
from = "b"
[stage.b]
use = "good"
from = ["a", "missing"]
[stage.c]
use = "god"
[stage.d]
use = "good.other"
[stage.e]
use = "wrong-abi"
)",
                                               Variables(), {}, report);
  (void)make_plan(spec, registry, report);
  const std::string text = report.text();
  EXPECT_THAT(text, AllOf(HasSubstr("'b' is a sink and gives nothing"),
                          HasSubstr("there is no stage 'missing'"),
                          HasSubstr("there is no plugin 'god'"), HasSubstr("did you mean 'good'?"),
                          HasSubstr("has no stage 'other'"), HasSubstr("plugin ABI 99.0")));
}

TEST(PipelineFileTest, SectionsNamedAfterPluginsHoldWhatOnlyThoseTake) {
  const std::string text =
      "[stage.store]\nuse = \"sink-b.fast\"\nfrom = \"x\"\nsize = 1\n"
      "[stage.store.sink-a]\npath = \"a\"\n"
      "[stage.store.sink-b]\npath = \"b\"\nsize = 2\n"
      "[config]\nuse = \"config-a\"\n[config.config-a]\nnode = \"n\"\n[config.config-b]\nno = 1\n";
  Report report;
  const PipelineSpec spec = read_pipeline_text("file", text, Variables(), {}, report);
  EXPECT_TRUE(report.empty()) << report.text();
  ASSERT_EQ(spec.stages.size(), 1U);
  const ConfigValue::Table& options = spec.stages[0].options;
  ASSERT_EQ(options.size(), 2U);
  EXPECT_EQ(options[0].key, "size");
  EXPECT_EQ(std::get<std::int64_t>(options[0].value.value), 1) << "the stage's own word wins";
  EXPECT_EQ(options[1].key, "path");
  EXPECT_EQ(*options[1].value.text(), "b");
  EXPECT_EQ(options[1].value.at.line, 8);
  ASSERT_TRUE(spec.config);
  ASSERT_EQ(spec.config->options.size(), 1U);
  EXPECT_EQ(spec.config->options[0].key, "node");
}

}  // namespace
}  // namespace millrace::host
