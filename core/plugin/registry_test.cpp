#include "plugin/registry.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "millrace/packet.h"
#include "millrace/testing.h"

namespace millrace::host {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

/// The plugins of tests/plugins, each wrong in its own way.
std::filesystem::path folder() { return MILLRACE_TEST_PLUGINS; }

std::string error_of(const std::string& name) {
  try {
    (void)load_plugin(folder() / (name + ".so"));
  } catch (const PluginError& error) {
    return error.what();
  }
  return "it was loaded";
}

TEST(RegistryTest, GoodPluginIsLoadedOnce) {
  Registry registry({folder()});
  const Plugin& plugin = registry.load("good");
  EXPECT_EQ(plugin.name, "good");
  EXPECT_NE(plugin.stage("good"), nullptr);
  EXPECT_EQ(plugin.stage("other"), nullptr);
  EXPECT_EQ(&registry.load("good"), &plugin);
}

TEST(RegistryTest, PluginSaysWhatItWasBuiltWith) {
  EXPECT_EQ(load_plugin(folder() / "good.so").built_with, MILLRACE_VERSION);
}

// Its head is that of ABI 1.0, so nothing behind it may be read.
TEST(RegistryTest, PluginOfThePreviousMinorIsLoadedAndRuns) {
  const Plugin plugin = load_plugin(folder() / "previous-minor.so");
  EXPECT_EQ(plugin.built_with, "");
  const StageDescriptor* descriptor = plugin.stage("previous-minor");
  ASSERT_NE(descriptor, nullptr);
  const auto options = descriptor->new_options();
  const std::unique_ptr<Stage> stage = descriptor->create(options.get());
  millrace::testing::TestContext context;
  millrace::testing::Recorder<Packet> recorder;
  stage->open(context);
  Batch<Packet> batch(std::vector<Packet>(4));
  stage->process_erased(batch, recorder);
  stage->close();
  EXPECT_EQ(recorder.items().size(), 2U);
}

TEST(RegistryTest, PluginOfANewerMinorIsRefusedAndSaysWhatWouldTakeIt) {
  EXPECT_THAT(error_of("newer-minor"),
              AllOf(HasSubstr("newer-minor.so"),
                    HasSubstr(fmt::format("it has plugin ABI {}.{} ", kAbiMajor, kAbiMinor + 1)),
                    HasSubstr(fmt::format("this host has {}.{}: it was built with Millrace 9.9.9, "
                                          "this is " MILLRACE_VERSION,
                                          kAbiMajor, kAbiMinor)),
                    HasSubstr("use a newer Millrace, or build the plugin again")));
}

TEST(RegistryTest, WrongAbiSaysBothVersions) {
  EXPECT_THAT(error_of("wrong-abi"),
              AllOf(HasSubstr("wrong-abi.so"), HasSubstr("plugin ABI 99.0"),
                    HasSubstr("this host has 1.1"), HasSubstr("build the plugin again")));
}

TEST(RegistryTest, HeadThatIsTooShortForItsMinorIsRefused) {
  PluginHead head{MILLRACE_PLUGIN_MAGIC, kFirstHeadSize, 1, 1, "", "", "", nullptr, ""};
  EXPECT_THAT(head_problem(head), HasSubstr("head of 48 bytes"));
  head.size = kFirstHeadSize - 1;
  head.abi_minor = 0;
  EXPECT_THAT(head_problem(head), HasSubstr("head of 47 bytes"));
}

TEST(RegistryTest, WrongFingerprintSaysWhichPartDiffers) {
  EXPECT_THAT(
      error_of("wrong-fingerprint"),
      AllOf(HasSubstr("in another way, with Millrace 9.9.9: "),
            HasSubstr("compiler is 'g++ 3' in the plugin"), HasSubstr("build the plugin again")));
}

TEST(RegistryTest, MissingSymbolIsNamed) {
  EXPECT_THAT(error_of("no-symbol"), HasSubstr("it has no symbol 'millrace_plugin'"));
}

TEST(RegistryTest, SymbolThatIsNoHead) {
  EXPECT_THAT(error_of("wrong-magic"), HasSubstr("not the head of a Millrace"));
}

TEST(RegistryTest, FileThatIsNoSharedObject) {
  EXPECT_THAT(error_of("no-object"), AllOf(HasSubstr("no-object.so"), HasSubstr("file too short")));
}

TEST(RegistryTest, UnknownNamesAreTold) {
  Registry registry({folder()});
  EXPECT_FALSE(registry.has("absent"));
  EXPECT_THROW(registry.load("absent"), PluginError);
  EXPECT_THAT(registry.names(), ::testing::Contains("good"));
}

}  // namespace
}  // namespace millrace::host
