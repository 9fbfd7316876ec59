#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "millrace/testing.h"

#include "sink_file.h"

namespace millrace {

namespace fs = std::filesystem;

inline Verdict example() {
  Verdict verdict;
  verdict.session.id.fill(0xAB);
  verdict.session.key.protocol = 6;
  verdict.session.key.low = {10, 0, 0, 1};
  verdict.session.key.high = {10, 0, 0, 2};
  verdict.session.key.low_port = 80;
  verdict.session.key.high_port = 40000;
  verdict.session.src_is_low = false;
  verdict.session.agent = "probe, 1";
  verdict.session.epoch = 7;
  verdict.session.packets = 3;
  verdict.session.bytes = 300;
  verdict.session.payload_bytes = 120;
  verdict.session.first_seen = Timestamp(std::chrono::seconds(1));
  verdict.session.last_seen = Timestamp(std::chrono::nanoseconds(2000000001));
  verdict.label = "say \"hi\", all";
  verdict.model = "m";
  verdict.confidence = 0.98766F;
  return verdict;
}

/// With the longest endpoints there are.
inline Verdict ipv6_example() {
  Verdict verdict = example();
  verdict.session.key.family = 6;
  verdict.session.key.low.fill(0xAA);
  verdict.session.key.high.fill(0xBB);
  verdict.session.key.low_port = 65534;
  verdict.session.key.high_port = 65535;
  verdict.session.packets = 65535;
  return verdict;
}

inline std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> all;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) all.push_back(line);
  return all;
}

class SinkFileTest : public ::testing::Test {
 protected:
  SinkFileTest()
      : folder_(fs::temp_directory_path() /
                ("sink-file-" + std::to_string(::getpid()) + "-" +
                 ::testing::UnitTest::GetInstance()->current_test_info()->name())),
        path_(folder_ / "out") {
    fs::create_directories(folder_);
  }
  ~SinkFileTest() override { fs::remove_all(folder_); }
  SinkFileTest(const SinkFileTest&) = delete;
  SinkFileTest& operator=(const SinkFileTest&) = delete;

  [[nodiscard]] std::string content() const {
    std::stringstream text;
    text << std::ifstream(path_).rdbuf();
    return text.str();
  }

  [[nodiscard]] FileOptions with(RowFormat format, bool append = false) const {
    return {.path = path_, .format = format, .append = append};
  }

  void run(const FileOptions& options, std::vector<Verdict> rows) {
    testing::Driven<SinkFile> sink(context_, options);
    sink.write(std::move(rows));
    sink.flush();
    EXPECT_EQ(sink.receipts.pending(), 0);
  }

  /// What a parser that knows nothing of this code makes of the file.
  [[nodiscard]] std::string python(const std::string& program) const {
    const fs::path script = folder_ / "script.py";
    const fs::path result = folder_ / "result";
    std::ofstream(script) << program;
    const std::string command =
        "python3 '" + script.string() + "' '" + path_.string() + "' > '" + result.string() + "'";
    if (std::system(command.c_str()) != 0) return "the parser failed";  // NOLINT(cert-env33-c)
    std::stringstream text;
    text << std::ifstream(result).rdbuf();
    return text.str();
  }
  static bool no_python() {
    return std::system("python3 -c pass 2>/dev/null") != 0;  // NOLINT(cert-env33-c)
  }

  fs::path folder_;
  fs::path path_;
  testing::TestContext context_;
};

}  // namespace millrace
