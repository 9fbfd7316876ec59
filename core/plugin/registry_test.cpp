#include "plugin/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

TEST(RegistryTest, WrongAbiSaysBothVersions) {
  EXPECT_THAT(error_of("wrong-abi"),
              AllOf(HasSubstr("wrong-abi.so"), HasSubstr("plugin ABI 99.0"),
                    HasSubstr("this host has 1.0"), HasSubstr("build the plugin again")));
}

TEST(RegistryTest, WrongFingerprintSaysWhichPartDiffers) {
  EXPECT_THAT(error_of("wrong-fingerprint"), AllOf(HasSubstr("compiler is 'g++ 3' in the plugin"),
                                                   HasSubstr("build the plugin again")));
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
