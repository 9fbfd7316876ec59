#include "config_file.h"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "millrace/testing.h"

#include "config_recorder.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class ConfigFileTest : public ::testing::Test {
 protected:
  ConfigFileTest()
      : folder_(fs::temp_directory_path() /
                ("config-file-" + std::to_string(::getpid()) + "-" +
                 ::testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::create_directories(folder_);
    options_.path = folder_ / "agent.toml";
  }
  ~ConfigFileTest() override {
    thread_ = {};
    fs::remove_all(folder_);
  }
  ConfigFileTest(const ConfigFileTest&) = delete;
  ConfigFileTest& operator=(const ConfigFileTest&) = delete;

  void start() {
    provider_ = std::make_unique<ConfigFile>(options_);
    provider_->open(context_);
    thread_ = std::jthread([this](const std::stop_token& stop) { provider_->run(told_, stop); });
  }
  static void write(const fs::path& path, const std::string& text) { std::ofstream(path) << text; }
  /// As editors do.
  void replace(const std::string& text) {
    write(folder_ / "new", text);
    fs::rename(folder_ / "new", options_.path);
  }
  bool says(const std::string& part) {
    const auto until = std::chrono::steady_clock::now() + 10s;
    while (std::chrono::steady_clock::now() < until) {
      for (const auto& [level, text] : context_.messages()) {
        if (text.find(part) != std::string::npos) return true;
      }
      std::this_thread::sleep_for(5ms);
    }
    return false;
  }

  fs::path folder_;
  ConfigFileOptions options_;
  testing::TestContext context_;
  ConfigRecorder told_;
  std::unique_ptr<ConfigFile> provider_;
  std::jthread thread_;
};

TEST_F(ConfigFileTest, TellsTheValuesAndEveryChange) {
  write(options_.path, "interface = 'lo'\n");
  start();
  EXPECT_EQ(told_.wait_for(1), "interface=lo");
  const auto begin = std::chrono::steady_clock::now();
  replace("interface = 'eth0'\n[server]\nport = 1\n");
  EXPECT_EQ(told_.wait_for(2), "interface=eth0 server.port=1");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 1s);
  write(options_.path, "interface = 'eth1'\n");
  EXPECT_EQ(told_.wait_for(3), "interface=eth1");
  for (std::size_t n = 1; n <= 3; ++n) EXPECT_EQ(told_.generation(n), n);
}

TEST_F(ConfigFileTest, SameContentIsNoChange) {
  write(options_.path, "a = 1\n");
  start();
  ASSERT_EQ(told_.wait_for(1), "a=1");
  replace("a = 1\n");
  write(folder_ / "other.toml", "b = 1\n");
  replace("a = 2\n");
  EXPECT_EQ(told_.wait_for(2), "a=2");
  EXPECT_EQ(told_.count(), 2U);
}

TEST_F(ConfigFileTest, WaitsForAFileThatIsNotThere) {
  start();
  ASSERT_TRUE(says("cannot be read yet (No such file or directory); waiting for it"));
  replace("a = 1\n");
  EXPECT_EQ(told_.wait_for(1), "a=1");
}

TEST_F(ConfigFileTest, WaitsForAFolderThatIsNotThere) {
  options_.path = folder_ / "later" / "agent.toml";
  start();
  ASSERT_TRUE(says("waiting for it"));
  fs::create_directory(folder_ / "later");
  replace("a = 1\n");
  EXPECT_EQ(told_.wait_for(1), "a=1");
}

TEST_F(ConfigFileTest, FileThatGoesLeavesItsValuesInUse) {
  write(options_.path, "a = 1\n");
  start();
  ASSERT_EQ(told_.wait_for(1), "a=1");
  fs::remove(options_.path);
  ASSERT_TRUE(says("cannot be read any more (No such file or directory); generation 1 stays"));
  replace("a = 1\n");
  replace("a = 2\n");
  EXPECT_EQ(told_.wait_for(2), "a=2");
}

TEST_F(ConfigFileTest, UnreadableContentHasAPlaceAndAGeneration) {
  write(options_.path, "a = 1\nb = = 1\n");
  start();
  EXPECT_THAT(told_.wait_for(1), StartsWith("! " + options_.path + ":2:5: "));
  replace("a = [1]\n");
  EXPECT_THAT(told_.wait_for(2), HasSubstr("'a' is a list"));
  replace("a = 1\n");
  EXPECT_EQ(told_.wait_for(3), "a=1");
  replace(std::string((1U << 20U) + 1, '#'));
  EXPECT_TRUE(says("File too large"));
  fs::remove(options_.path);
  fs::create_directory(options_.path);
  EXPECT_TRUE(says("Is a directory"));
}

TEST_F(ConfigFileTest, FileThatIsWrittenInPiecesIsReadOnce) {
  options_.settle = 200ms;
  write(options_.path, "a = 1\n");
  start();
  ASSERT_EQ(told_.wait_for(1), "a=1");
  for (const char* piece : {"a = 2\n", "b = ", "3\n"}) {
    std::ofstream(options_.path, piece[0] == 'a' ? std::ios::trunc : std::ios::app) << piece;
  }
  EXPECT_EQ(told_.wait_for(2), "a=2 b=3");
}

TEST_F(ConfigFileTest, LinksThatAreSwappedAtOnce) {
  // As Kubernetes mounts a ConfigMap: agent.toml -> ..data/agent.toml, ..data -> ..1.
  fs::create_directory(folder_ / "..1");
  write(folder_ / "..1/agent.toml", "a = 1\n");
  fs::create_symlink("..1", folder_ / "..data");
  fs::create_symlink("..data/agent.toml", options_.path);
  start();
  ASSERT_EQ(told_.wait_for(1), "a=1");
  for (int i = 2; i <= 4; ++i) {
    const std::string name = ".." + std::to_string(i);
    fs::create_directory(folder_ / name);
    write(folder_ / name / "agent.toml", "a = " + std::to_string(i) + "\n");
    fs::create_symlink(name, folder_ / "..data_tmp");
    fs::rename(folder_ / "..data_tmp", folder_ / "..data");
    fs::remove_all(folder_ / (".." + std::to_string(i - 1)));
    EXPECT_EQ(told_.wait_for(static_cast<std::size_t>(i)), "a=" + std::to_string(i));
  }
}

TEST_F(ConfigFileTest, FileThatALinkPointsTo) {
  fs::create_directory(folder_ / "elsewhere");
  write(folder_ / "elsewhere/real.toml", "a = 1\n");
  fs::create_symlink("elsewhere/real.toml", options_.path);
  start();
  ASSERT_EQ(told_.wait_for(1), "a=1");
  write(folder_ / "elsewhere/real.toml", "a = 2\n");
  EXPECT_EQ(told_.wait_for(2), "a=2");
}

TEST_F(ConfigFileTest, EndsAtOnceWhenAsked) {
  start();
  ASSERT_TRUE(says("waiting for it"));
  const auto begin = std::chrono::steady_clock::now();
  thread_.request_stop();
  thread_.join();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 400ms);
}

TEST_F(ConfigFileTest, PathThatIsNoFileName) {
  for (const char* path : {"", "/etc/"}) {
    options_.path = path;
    ConfigFile provider(options_);
    EXPECT_THROW(provider.open(context_), ConfigError) << path;
  }
}

}  // namespace
}  // namespace millrace
