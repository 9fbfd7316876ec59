#pragma once

/// A real MariaDB whose binary log a source-binlog in a thread reads.

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "millrace/error.h"

#include "change_fixture.h"
#include "source_binlog.h"
#include "support/services.h"

namespace millrace {

using RunningSource = RunningChanges<SourceBinlog, BinlogOptions>;

/// Every test has a database and a state file of its own on one server.
class BinlogTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    services() = std::make_unique<testing::Services>(testing::Services::Names{server()});
  }
  static void TearDownTestSuite() { services().reset(); }
  static std::string server() { return "mariadb"; }
  static std::unique_ptr<testing::Services>& services() {
    static std::unique_ptr<testing::Services> running;
    return running;
  }

  void SetUp() override {
    if (!services()->missing().empty()) GTEST_SKIP() << services()->missing();
    database_ = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    // Parameters of a test stand behind a slash.
    std::replace(database_.begin(), database_.end(), '/', '_');
    execute({"SET GLOBAL binlog_row_metadata = FULL", "SET GLOBAL binlog_row_image = FULL",
             "SET GLOBAL binlog_format = ROW", "DROP DATABASE IF EXISTS `" + database_ + "`",
             "CREATE DATABASE `" + database_ + "` CHARACTER SET utf8mb4"},
            "millrace");
    options_.server = url("root");
    options_.tables = {table("t")};
    options_.state = services()->folder() / (database_ + ".state");
    std::filesystem::remove(options_.state);
    options_.commit_every = 10ms;
    options_.retry_pause = 50ms;
    options_.connect_timeout = 2s;
    options_.heartbeat = 1s;
    options_.wait = 0s;
  }

  [[nodiscard]] std::string url(const std::string& user) const { return url(user, database_); }
  [[nodiscard]] static std::string url(const std::string& user, const std::string& database) {
    return "mysql://" + user + "@127.0.0.1:" + std::to_string(services()->port(server())) + "/" +
           database;
  }
  [[nodiscard]] std::string table(const std::string& name) const { return database_ + "." + name; }

  /// By one connection, one after the other, each a transaction of its own; between XA START and XA
  /// COMMIT they are one.
  void execute(const std::vector<std::string>& statements, const std::string& database = "") const {
    Connection connection;
    connection.open(root(database.empty() ? database_ : database));
    bool xa = false;
    for (const std::string& statement : statements) {
      connection.execute(statement);
      xa = statement.starts_with("XA START") || (xa && !statement.starts_with("XA COMMIT"));
      if (!xa) connection.commit();
    }
  }
  /// By one connection, in one transaction.
  void in_one_transaction(const std::vector<std::string>& statements) const {
    Connection connection;
    connection.open(root(database_));
    for (const std::string& statement : statements) connection.execute(statement);
    connection.commit();
  }
  [[nodiscard]] std::vector<Connection::Row> query(const std::string& sql,
                                                   const std::string& before = "") const {
    Connection connection;
    connection.open(root(database_));
    if (!before.empty()) connection.execute(before);
    return connection.query(sql);
  }
  void make_table(const std::string& name = "t") const {
    execute({"CREATE TABLE " + name + " (id INT PRIMARY KEY, a VARCHAR(20))"});
  }
  void insert(int first, int last, const std::string& name = "t") const {
    std::vector<std::string> statements;
    for (int id = first; id <= last; ++id) {
      statements.push_back("INSERT INTO " + name + " VALUES (" + std::to_string(id) + ", 'x')");
    }
    execute(statements);
  }
  static std::vector<std::string> ids(int first, int last) {
    std::vector<std::string> list;
    for (int id = first; id <= last; ++id) list.push_back(std::to_string(id));
    return list;
  }
  [[nodiscard]] std::string state() const {
    std::ifstream file(options_.state);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  /// The position behind everything that is in the log now, as the state file has it.
  [[nodiscard]] std::string end_of_log() const {
    return "gtid " + query("SELECT @@gtid_binlog_pos").at(0).at(0).value_or("") + "\n";
  }
  /// "option: message" of what `open` says against the options, or just what it says.
  [[nodiscard]] std::string refusal() const {
    testing::TestContext context;
    SourceBinlog source(options_);
    try {
      source.open(context);
    } catch (const ConfigError& error) {
      return error.option() + ": " + error.what();
    } catch (const std::exception& error) {
      return error.what();
    }
    source.close();
    return "accepted";
  }

  std::string database_;
  BinlogOptions options_;
  Collector out_;

 private:
  [[nodiscard]] static ConnectionOptions root(const std::string& database) {
    ConnectionOptions options;
    options.address = parse_server_address(url("root", database));
    options.connect_timeout = options.read_timeout = options.write_timeout =
        std::chrono::seconds(20);
    return options;
  }
};

}  // namespace millrace
