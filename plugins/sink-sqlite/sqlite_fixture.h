#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <unistd.h>

#include "millrace/testing.h"

#include "sink_sqlite.h"

namespace millrace {

namespace fs = std::filesystem;

inline Verdict verdict(std::uint8_t id, std::string_view label) {
  Verdict v;
  v.session.id[0] = id;
  v.session.key.protocol = 17;
  v.session.packets = id;
  v.label = label;
  v.model = label.empty() ? "" : "m";
  v.model_version = label.empty() ? "" : "7";
  v.confidence = label.empty() ? 0 : 0.5F;
  return v;
}

/// With ids from `first` to `last`.
inline std::vector<Verdict> verdicts(int first, int last, std::string_view label) {
  std::vector<Verdict> rows;
  for (int id = first; id <= last; ++id) {
    rows.push_back(verdict(static_cast<std::uint8_t>(id), label));
    rows.back().session.id[1] = static_cast<std::uint8_t>(id >> 8);
  }
  return rows;
}

/// A second, real connection to the database.
class Other {
 public:
  explicit Other(const std::string& path) {
    sqlite3* raw = nullptr;
    sqlite3_open(path.c_str(), &raw);
    connection_.reset(raw);
  }
  /// The values of all rows, each with ';' behind it, or the error.
  std::string query(const std::string& sql) {
    std::string rows;
    const auto take = [](void* to, int columns, char** values, char** /*names*/) {
      for (int i = 0; i < columns; ++i) {
        *static_cast<std::string*>(to) +=
            std::string(values[i] != nullptr ? values[i] : "NULL") + ";";
      }
      return 0;
    };
    const int code = sqlite3_exec(connection_.get(), sql.c_str(), take, &rows, nullptr);
    return code == SQLITE_OK ? rows : std::string(sqlite3_errmsg(connection_.get()));
  }

 private:
  struct Close {
    void operator()(sqlite3* connection) const { sqlite3_close(connection); }
  };
  std::unique_ptr<sqlite3, Close> connection_;
};

class SinkSqliteTest : public ::testing::Test {
 protected:
  SinkSqliteTest()
      : folder_(fs::temp_directory_path() /
                ("sink-sqlite-" + std::to_string(::getpid()) + "-" +
                 ::testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::create_directories(folder_);
    options_.path = folder_ / "s.db";
  }
  ~SinkSqliteTest() override { fs::remove_all(folder_); }
  SinkSqliteTest(const SinkSqliteTest&) = delete;
  SinkSqliteTest& operator=(const SinkSqliteTest&) = delete;

  [[nodiscard]] std::string query(const std::string& sql) const {
    return Other(options_.path).query(sql);
  }

  void run(std::vector<Verdict> verdicts) {
    testing::Driven<SinkSqlite> sink(context_, options_);
    sink.write(std::move(verdicts));
    sink.close();
    EXPECT_EQ(sink.receipts.pending(), 0);
    EXPECT_EQ(sink.receipts.failed(), 0);
  }

  /// What `open` says of the option "path".
  std::string refusal() {
    try {
      const testing::Driven<SinkSqlite> sink(context_, options_);
    } catch (const ConfigError& error) {
      EXPECT_EQ(error.option(), "path");
      return error.what();
    }
    return "accepted";
  }

  /// A line each.
  [[nodiscard]] std::string warnings() const {
    std::string all;
    for (const auto& [level, message] : context_.messages()) {
      if (level == LogLevel::warning) all += message + "\n";
    }
    return all;
  }
  std::uint64_t count(const std::string& name) { return context_.counter(name).value(); }

  fs::path folder_;
  SqliteOptions options_;
  testing::TestContext context_;
};

}  // namespace millrace
