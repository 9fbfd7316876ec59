#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "millrace/packet.h"

#include "config/pipeline_file.h"
#include "graph/plan.h"

namespace millrace::host {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

/// A plugin whose stage has a secret of every kind.
class SecretTest : public ::testing::Test {
 protected:
  struct Options {
    std::string server;
    std::string user;
    Duration passing{};
    std::map<std::string, std::string> kafka;
    std::vector<std::string> tokens;
  };

  SecretTest() : registry_(std::vector<std::filesystem::path>{}) {
    StageDescriptor stage;
    stage.name = "source-x";
    stage.kind = StageKind::source;
    stage.output = &item_type<Packet>();
    stage.new_options = [] { return std::make_shared<Options>(); };
    stage.options = {option<&Options::server>("server", "").secret(),
                     option<&Options::user>("user", ""),
                     option<&Options::passing>("passing", "").secret(),
                     option<&Options::kafka>("kafka", "").secret(),
                     option<&Options::tokens>("tokens", "").secret()};
    stage.check = [](const void* options, Findings& findings) {
      if (!static_cast<const Options*>(options)->server.empty()) {
        findings.add("server", "it does not answer");
      }
    };
    body_.stages.push_back(stage);
    registry_.add({"source-x", "1", "1", {}, &body_});
  }

  /// What `check` says of a stage with these lines; the first of them is line 3.
  std::string said_of(const std::string& lines, const std::vector<Setting>& settings = {},
                      const std::map<std::string, std::string>& variables = {},
                      const std::string& use = "source-x") {
    Report report;
    const PipelineSpec spec =
        read_pipeline_text("p.toml", "[stage.a]\nuse = \"" + use + "\"\n" + lines,
                           Variables(variables), settings, report);
    (void)make_plan(spec, registry_, report);
    return report.text();
  }

  PluginBody body_;
  Registry registry_;
};

TEST_F(SecretTest, ValuesInTheFileAreNotShown) {
  const auto hidden = [](const char* shown) {
    return AllOf(HasSubstr(shown), Not(HasSubstr("hunter")), Not(HasSubstr("17")));
  };
  EXPECT_THAT(said_of("server = \"x://u:hunter@h\" # a note\n"),
              hidden("p.toml:3:10: error: it does not answer\n"
                     "    3 | server = \"***\" # a note\n"
                     "      |          ^~~~~\n"));
  EXPECT_THAT(said_of("server = 17\n"),
              hidden("this value cannot be 'server'\n    3 | server = ***\n"
                     "      |          ^~~\n"));
  EXPECT_THAT(said_of("passing = \"hunter\"\n"), hidden("passing = \"***\""));
  EXPECT_THAT(said_of("tokens = [17, \"hunter\"]\n"), hidden("tokens = [***, \"***\"]"));
  EXPECT_THAT(said_of("kafka = { a = \"hunter\", b = [17] }\n"),
              hidden("{ a = \"***\", b = [***] }"));
  EXPECT_THAT(said_of("server = \"pässwörd-hunter\"\n"), hidden("server = \"***\""));
  EXPECT_THAT(said_of("server = \"\"\"\nfirst\nhunter\"\"\"\n"), hidden("it does not answer"));
}

TEST_F(SecretTest, WhatIsWrongBesideASecretShowsNoSecretEither) {
  const auto hidden = AllOf(HasSubstr("error"), Not(HasSubstr("hunter")));
  EXPECT_THAT(said_of("kafka = { a = \"hunter\", b = \"${NOT_SET_ANYWHERE}\" }\n"), hidden);
  EXPECT_THAT(said_of("servre = \"hunter\"\n"),
              AllOf(hidden, HasSubstr("did you mean 'server'?"), HasSubstr("servre = \"***\"")));
  EXPECT_THAT(said_of("server = \"hunter\n"), AllOf(hidden, HasSubstr("    3 | server =***\n")));
  EXPECT_THAT(said_of("servre = hunter\n"), AllOf(hidden, HasSubstr("servre =***")));
  EXPECT_THAT(said_of("user = hunter\n"), HasSubstr("user = hunter")) << "that is none";
  EXPECT_THAT(said_of("a-b.c = \"hunter${NOT_SET_ANYWHERE}\"\n"), hidden);
  EXPECT_THAT(said_of("[stage.a.source-y]\nserver = \"hunter${NOT_SET_ANYWHERE}\"\n"), hidden);
  const std::string inline_table = "[stage]\na = { use = \"source-y\", server = \"hunter\" }\n";
  Report report;
  (void)make_plan(read_pipeline_text("p.toml", inline_table, Variables(), {}, report), registry_,
                  report);
  EXPECT_THAT(report.text(), AllOf(hidden, HasSubstr("there is no plugin 'source-y'")))
      << "unknown";
}

TEST_F(SecretTest, ReferencesAreShown) {
  EXPECT_THAT(said_of("server = \"${NOT_SET_ANYWHERE}\"\n"),
              HasSubstr("p.toml:3:11: error: variable 'NOT_SET_ANYWHERE' is not set; give --var "
                        "NOT_SET_ANYWHERE=... or set it in the environment\n"
                        "    3 | server = \"${NOT_SET_ANYWHERE}\"\n"
                        "      |           ^~~~~~~~~~~~~~~~~~~\n"));
  EXPECT_THAT(said_of("server = \"x://u:hunter@${NOT_SET_ANYWHERE:?where}/hunter\"\n"),
              AllOf(HasSubstr("server = \"***${NOT_SET_ANYWHERE:?where}***\"\n"
                              "      |              ^~~"),
                    Not(HasSubstr("hunter"))));
  EXPECT_THAT(said_of("server = \"${NOT_SET_ANYWHERE:-hunter}\"\n"),
              AllOf(HasSubstr("server = \"${NOT_SET_ANYWHERE:-***\"\n"), Not(HasSubstr("hunter"))));
}

TEST_F(SecretTest, ValuesOfTheCommandLineAreNotShown) {
  const auto hidden = [](const char* shown) {
    return AllOf(HasSubstr(shown), Not(HasSubstr("hunter")));
  };
  EXPECT_THAT(said_of("", {{"a.server=hunter"}}), hidden("--set a.server: error: it does not"));
  EXPECT_THAT(said_of("", {{"a.passing=hunter"}}), hidden("--set a.passing: error: this value"));
  EXPECT_THAT(said_of("", {{"a.tokens=[\"hunter\", 3]"}}), hidden("--set a.tokens: error: "));
  EXPECT_THAT(said_of("", {{"a.tokens=[\"hunter ${NOT_SET_ANYWHERE}\"]"}}),
              hidden("--set a.tokens"));
  EXPECT_THAT(said_of("", {{"b.server=hunter"}}), hidden("there is no stage 'b'"));
  EXPECT_THAT(said_of("", {{"server=hunter"}}), hidden("--set: error: this is no setting"));
  EXPECT_THAT(said_of("", {{"hunter"}}), hidden("--set: error: this is no setting"));
  EXPECT_THAT(said_of("", {{"x://u:hunter.1@h/?a=b"}}), hidden("--set: error: this is no setting"));
  EXPECT_THAT(said_of("server = \"${X}\"\n", {}, {{"X", "hunter"}}), hidden("it does not answer"));
  EXPECT_THAT(said_of("passing = \"${X}\"\n", {}, {{"X", "hunter"}}), hidden("this value cannot"));
}

}  // namespace
}  // namespace millrace::host
