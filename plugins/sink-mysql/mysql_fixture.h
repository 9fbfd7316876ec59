#pragma once

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "millrace/testing.h"

#include "sink_mysql.h"
#include "support/services.h"
#include "support/verdicts.h"

namespace millrace {

using testing::verdict;
using testing::verdicts;

/// Every test has a database of its own on one real server: MariaDB, or the MySQL whose mysqld
/// MILLRACE_MYSQLD names.
class SinkMysqlTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    services() = std::make_unique<testing::Services>(
        testing::Services::Names{server()},
        // In no test may the time zone of the server show.
        testing::Services::Names{"--option", server() + "=--default-time-zone=+05:30"});
  }
  static void TearDownTestSuite() { services().reset(); }
  static std::string server() {
    return std::getenv("MILLRACE_MYSQLD") == nullptr ? "mariadb" : "mysql";
  }
  static std::unique_ptr<testing::Services>& services() {
    static std::unique_ptr<testing::Services> running;
    return running;
  }

  void SetUp() override {
    if (!services()->missing().empty()) GTEST_SKIP() << services()->missing();
    database_ = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    ConnectionOptions root = root_options();
    root.address.database = "millrace";
    Connection connection;
    connection.open(root);
    connection.execute("DROP DATABASE IF EXISTS `" + database_ + "`");
    connection.execute("CREATE DATABASE `" + database_ + "` CHARACTER SET latin1");
    options_.server = url("root");
    options_.create = true;
    options_.wait = Duration(0);
  }

  /// Of this test's database; `user` with a password, if there is one.
  [[nodiscard]] std::string url(const std::string& user) const {
    return "mysql://" + user + "@127.0.0.1:" + std::to_string(services()->port(server())) + "/" +
           database_;
  }
  [[nodiscard]] ConnectionOptions root_options() const {
    ConnectionOptions options;
    options.address = parse_server_address(url("root"));
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
    connection.commit();
  }

  /// A user who has all rights in this test's database, or those of `rights`; `how` is what
  /// CREATE USER says of it.
  void make_user(const std::string& name, const std::string& how = {},
                 const std::string& rights = "ALL") const {
    const std::string account = name + "@'%'";
    execute("DROP USER IF EXISTS " + account);
    execute("CREATE USER " + account + " " + how);
    execute("GRANT " + rights + " ON `" + database_ + "`.* TO " + account);
  }

  Batch<Verdict> batch_of(std::vector<Verdict> rows) {
    Batch<Verdict> batch(std::move(rows));
    batch.receipt = receipts_.make();
    return batch;
  }

  /// Gives a batch as the host does, which resolves what the stage has left.
  static void give(SinkMysql& sink, Batch<Verdict>& batch) {
    sink.write(batch);
    batch.receipt.done();
  }

  void run(std::vector<Verdict> rows) {
    SinkMysql sink(options_);
    sink.open(context_);
    Batch<Verdict> batch = batch_of(std::move(rows));
    give(sink, batch);
    sink.close();
    EXPECT_EQ(receipts_.pending(), 0);
    EXPECT_EQ(receipts_.failed(), 0);
  }

  /// "option: message" of what `open` says against the options.
  std::string refusal() {
    SinkMysql sink(options_);
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
  MysqlOptions options_;
  testing::TestContext context_;
  testing::WatchedReceipt receipts_;
};

}  // namespace millrace
