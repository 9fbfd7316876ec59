#include <algorithm>
#include <cstdlib>

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "millrace/abi.h"
#include "millrace/plugin.h"

#include "model_torch.h"
#include "tests/fixture.h"
#include "tests/model_fixture.h"

namespace millrace {
namespace {

using namespace model_torch_test;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Recorder;
using ::testing::SizeIs;

class TorchOpenTest : public TorchModelTest {};

TEST_F(TorchOpenTest, RefusesModelsThatDoNotFitTheirCards) {
  EXPECT_THAT(refusal(with_card("narrow", card784())),
              AllOf(HasSubstr("model: "), HasSubstr("gives 10 classes"), HasSubstr("20 labels")));

  CardText small = card784();
  small.bytes = "100";
  small.shape = "[100]";
  EXPECT_THAT(refusal(with_card("linear", small)),
              AllOf(HasSubstr("(uint8 [sessions, 100])"), HasSubstr("cannot be multiplied"),
                    Not(HasSubstr("\n"))));
  EXPECT_THAT(refusal(with_card("lenet", card784())), HasSubstr("(uint8 [sessions, 784])"));

  CardText floats;
  floats.dtype = R"("float32")";
  EXPECT_THAT(refusal(with_card("known", floats)), HasSubstr("(float32 [sessions, 8])"));
  EXPECT_THAT(refusal(with_card("one-row")),
              AllOf(HasSubstr("(uint8 [sessions, 8])"), HasSubstr("only one row")));
  EXPECT_THAT(refusal(with_card("pair")), HasSubstr("does not give a tensor"));
  EXPECT_THAT(refusal(with_card("integers")), HasSubstr("Long; expected Float"));
  EXPECT_THAT(refusal(with_card("flat")), HasSubstr("of shape [64]"));
}

TEST_F(TorchOpenTest, RefusesFilesThatAreNoModels) {
  const std::string good = read_bytes(folder_->path() / "linear.pt");
  ASSERT_GT(good.size(), 1000U);
  for (const auto& [name, content] :
       {std::pair<std::string, std::string>{"cut", good.substr(0, good.size() / 2)},
        {"garbage", std::string(5000, 'x')},
        {"empty", ""}}) {
    (void)folder_->write(name + ".pt", content);
    EXPECT_THAT(refusal(with_card(name, card784())),
                AllOf(HasSubstr("model: "), HasSubstr(name + ".pt' cannot be used: "),
                      Not(HasSubstr("\n"))))
        << name;
  }
}

TEST_F(TorchOpenTest, RefusesWhatIsMissingOrWrong) {
  TorchOptions options;
  options.model = "models/there-is-none.pt";
  EXPECT_THAT(refusal(options),
              AllOf(HasSubstr("model: there is no file"), HasSubstr("working folder")));

  options = with_card("known");
  std::filesystem::remove(folder_->path() / "known.toml");
  EXPECT_THAT(refusal(options), AllOf(HasSubstr("model: "), HasSubstr("known.toml")));

  options = with_card("known");
  options.card = (folder_->path() / "other.toml").string();
  EXPECT_THAT(refusal(options), AllOf(HasSubstr("card: "), HasSubstr("other.toml")));
  CardText other;
  other.labels = R"(["eins", "zwei", "drei"])";
  (void)folder_->write("other.toml", other.text());
  EXPECT_EQ(run(options, sessions_of({{1}})).items[0].label, "zwei");

  CardText bad;
  bad.more = "min_confidance = 0.5";
  EXPECT_THAT(refusal(with_card("known", bad)),
              AllOf(HasSubstr("known.toml:5:1: "), HasSubstr("did you mean 'min_confidence'")));
}

TEST_F(TorchOpenTest, ThreadsAreOneNumberForTheProcess) {
  auto options = with_card("known");
  EXPECT_EQ(refusal(options), "opened");
  options.threads = 3;
  EXPECT_THAT(refusal(options), AllOf(HasSubstr("threads: "), HasSubstr("has set it to 1")));
}

TEST_F(TorchOpenTest, CheckFindsWhatIsWrongBeforeTheStart) {
  const auto found = [](const TorchOptions& options) {
    Findings findings;
    check_torch_options(options, findings);
    std::string text;
    for (const auto& finding : findings.list()) text += finding.option + ": " + finding.message;
    return text;
  };
  EXPECT_EQ(found(with_card("known")), "");
  CardText bad;
  bad.layer = R"("l6")";
  EXPECT_THAT(found(with_card("known", bad)), HasSubstr("model: "));

  TorchOptions options = with_card("known");
  options.card = "not-in-the-working-folder.toml";  // may be in the installation
  EXPECT_EQ(found(options), "");
  options.card = (folder_->path() / "absent.toml").string();
  EXPECT_THAT(found(options), HasSubstr("card: there is no card"));
  options = {};
  options.model = "not-in-the-working-folder.pt";
  EXPECT_EQ(found(options), "");
  options.model = "/absent/model.pt";
  EXPECT_THAT(found(options), HasSubstr("model: there is no file '/absent/model.pt'"));
}

/// In a process of its own, because others of these tests load libtorch.
TEST_F(TorchOpenTest, CheckDoesNotLoadLibtorch) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        void* plugin = ::dlopen(MODEL_TORCH_PLUGIN, RTLD_NOW);
        Findings findings;
        check_torch_options(with_card("known"), findings);
        const bool loaded = ::dlopen("libtorch_cpu.so.1.13", RTLD_NOW | RTLD_NOLOAD) != nullptr;
        std::exit(plugin == nullptr ? 2 : loaded ? 1 : 0);
      },
      ::testing::ExitedWithCode(0), "");
}

/// As the host does it: the plugin, from where it was built, finds its backend.
TEST_F(TorchOpenTest, ThePluginFindsItsBackend) {
  void* library = ::dlopen(MODEL_TORCH_PLUGIN, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  ASSERT_NE(library, nullptr) << ::dlerror();
  const auto* head = static_cast<const PluginHead*>(::dlsym(library, "millrace_plugin"));
  ASSERT_NE(head, nullptr);
  const PluginBody& body = head->body();
  ASSERT_EQ(body.stages.size(), 1U);
  const StageDescriptor& descriptor = body.stages.front();
  const std::shared_ptr<void> options = descriptor.new_options();
  const auto model = std::ranges::find(descriptor.options, "model", &OptionSpec::name);
  ASSERT_NE(model, descriptor.options.end());
  ASSERT_FALSE(model->assign(options.get(), {with_card("known").model}));
  const std::unique_ptr<Stage> stage = descriptor.create(options.get());
  stage->open(context_);
  Batch<Session> sessions = sessions_of({{1}});
  Recorder<Verdict> recorder;
  stage->process_erased(sessions, recorder);
  ASSERT_THAT(recorder.items(), SizeIs(1));
  EXPECT_EQ(recorder.items().front().label, "one");
  stage->close();
}

}  // namespace
}  // namespace millrace
