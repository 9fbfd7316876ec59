#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "millrace/testing.h"

#include "sink_postgres.h"
#include "support/services.h"
#include "support/verdicts.h"

namespace millrace {

using testing::verdict;
using testing::verdicts;

/// Every test has a database of its own on one real server.
class SinkPostgresTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    services() = std::make_unique<testing::Services>(
        testing::Services::Names{"postgres"},
        // In no test may the time zone of the server show.
        testing::Services::Names{"--option", "postgres=-c timezone=Asia/Kolkata"});
  }
  static void TearDownTestSuite() { services().reset(); }
  static std::unique_ptr<testing::Services>& services() {
    static std::unique_ptr<testing::Services> running;
    return running;
  }

  void SetUp() override {
    if (!services()->missing().empty()) GTEST_SKIP() << services()->missing();
    database_ = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    make_database("TEMPLATE template1");
    options_.server = url("postgres");
    options_.create = true;
    options_.wait = Duration(0);
  }

  void make_database(const std::string& how) const {
    ConnectionOptions root = root_options();
    root.address["dbname"] = "millrace";
    Connection connection;
    connection.open(root);
    connection.execute("DROP DATABASE IF EXISTS \"" + database_ + "\" WITH (FORCE)");
    connection.execute("CREATE DATABASE \"" + database_ + "\" " + how);
  }

  /// Of this test's database; `user` with a password, if there is one.
  [[nodiscard]] std::string url(const std::string& user) const { return url_at(user, "127.0.0.1"); }
  [[nodiscard]] std::string url_at(const std::string& user, const std::string& host) const {
    return "postgresql://" + user + "@" + host + ":" +
           std::to_string(services()->port("postgres")) + "/" + database_;
  }
  [[nodiscard]] ConnectionOptions root_options() const {
    ConnectionOptions options;
    options.address = parse_server_address(url("postgres"));
    options.connect_timeout = options.read_timeout = options.write_timeout =
        std::chrono::seconds(20);
    return options;
  }

  /// The values of all rows, each with ';' behind it, or the error, from a connection of its own.
  [[nodiscard]] std::string query(const std::string& sql) const {
    try {
      Connection connection;
      connection.open(root_options());
      std::string all;
      for (const Connection::Row& row : connection.query(sql)) {
        for (const auto& value : row) all += value.value_or("NULL") + ";";
      }
      return all;
    } catch (const ServerError& error) {
      return error.what();
    }
  }
  void execute(const std::string& sql) const {
    Connection connection;
    connection.open(root_options());
    connection.execute(sql);
  }

  /// Puts lines before the server's rules for who may come and how, and restarts it.
  static void add_rules(const std::string& lines) {
    const std::filesystem::path file = services()->folder() / "postgres/data/pg_hba.conf";
    std::ifstream in(file);
    const std::string rules{std::istreambuf_iterator<char>(in), {}};
    std::ofstream(file) << lines << rules;
    services()->restart("postgres");
  }

  Batch<Verdict> batch_of(std::vector<Verdict> rows) {
    Batch<Verdict> batch(std::move(rows));
    batch.receipt = receipts_.make();
    return batch;
  }

  /// Gives a batch as the host does, which resolves what the stage has left.
  static void give(SinkPostgres& sink, Batch<Verdict>& batch) {
    sink.write(batch);
    batch.receipt.done();
  }

  void run(std::vector<Verdict> rows) {
    SinkPostgres sink(options_);
    sink.open(context_);
    Batch<Verdict> batch = batch_of(std::move(rows));
    give(sink, batch);
    sink.close();
    EXPECT_EQ(receipts_.pending(), 0);
    EXPECT_EQ(receipts_.failed(), 0);
  }

  /// "option: message" of what `open` says against the options.
  std::string refusal() {
    SinkPostgres sink(options_);
    try {
      sink.open(context_);
    } catch (const ConfigError& error) {
      return error.option() + ": " + error.what();
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

  std::string database_;
  PostgresOptions options_;
  testing::TestContext context_;
  testing::WatchedReceipt receipts_;
};

}  // namespace millrace
