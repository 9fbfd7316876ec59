#include "reconcile.h"

#include "apply_fixture.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// A table of a real server beside the ensemble.
class ReconcileTest : public ApplyTest {
 protected:
  static void SetUpTestSuite() { start({"zookeeper", "mariadb"}); }

  void SetUp() override {
    ApplyTest::SetUp();
    if (IsSkipped()) return;
    const std::string port = std::to_string(services()->port("mariadb"));
    options_.reconcile = "mysql://root@127.0.0.1:" + port + "/millrace?table=" + folder_.substr(1);
    options_.reconcile_every = 60s;
    address_ = parse_table_address(options_.reconcile);
    sql("DROP TABLE IF EXISTS " + address_.table);
    sql("CREATE TABLE " + address_.table +
        " (agent VARCHAR(64) PRIMARY KEY, interface VARCHAR(64), filter VARCHAR(200)) CHARACTER "
        "SET utf8mb4");
  }
  void sql(const std::string& text) const {
    Connection connection;
    connection.open(address_.server);
    connection.execute(text);
    connection.commit();
  }
  void insert(const std::string& values) const {
    sql("INSERT INTO " + address_.table + " VALUES " + values);
  }
  /// What a live source does when nothing comes.
  void idle() { apply({}); }
  void later() {
    context_.manual_clock.advance(60s);
    idle();
  }
  Change change_of(Change change) const {
    change.database = "millrace";
    change.table = address_.table;
    return change;
  }

  TableAddress address_;
};

TEST_F(ReconcileTest, NodesAreRepairedAtTheStartAndNowAndThen) {
  insert("('a', 'eth0', 'tcp'), ('b', 'eth\"1', NULL), ('c', 'eth2', '\xC3\xA4')");
  other_->put(folder_ + "/agents/a", "interface = \"old\"\n");
  other_->put(folder_ + "/agents/c", "filter = \"\xC3\xA4\"\ninterface = \"eth2\"\n");
  other_->put(folder_ + "/agents/gone", "x = \"1\"\n");
  const auto untouched = other_->stat(folder_ + "/agents/c")->mzxid;
  idle();
  EXPECT_THAT(agents(), ElementsAre("a", "b", "c"));
  EXPECT_EQ(get("a"), "filter = \"tcp\"\ninterface = \"eth0\"\n");
  EXPECT_EQ(get("b"), "interface = \"eth\\\"1\"\n");
  EXPECT_EQ(other_->stat(folder_ + "/agents/c")->mzxid, untouched);
  EXPECT_EQ(count("repaired"), 3U);
  EXPECT_TRUE(says(context_, "3 rows of millrace." + address_.table +
                                 ": 1 were missing, 1 different, 1 superfluous; 0 left"));
  sql("UPDATE " + address_.table + " SET filter = 'udp' WHERE agent = 'a'");
  idle();
  EXPECT_THAT(get("a"), HasSubstr("tcp"));
  later();
  EXPECT_THAT(get("a"), HasSubstr("udp"));
  EXPECT_EQ(count("repaired"), 4U);
  later();
  EXPECT_EQ(count("repaired"), 4U);
}

TEST_F(ReconcileTest, WhatAChangeWritesIsWhatTheTableGives) {
  options_.columns = {"interface", "filter"};
  insert("('a', 'eth0', NULL)");
  apply({change_of(inserted({{"agent", "a"}, {"interface", "eth0"}, {"filter", std::nullopt}}))});
  EXPECT_EQ(count("created"), 1U);
  EXPECT_EQ(count("repaired"), 0U);
}

TEST_F(ReconcileTest, OnlyAtTheStart) {
  options_.reconcile_every = Duration(0);
  insert("('a', 'eth0', 'tcp')");
  idle();
  EXPECT_THAT(agents(), ElementsAre("a"));
  insert("('b', 'eth0', 'tcp')");
  later();
  EXPECT_THAT(agents(), ElementsAre("a"));
}

TEST_F(ReconcileTest, SuperfluousNodesStayWhereTheFolderMayBeOfOthers) {
  options_.on_delete = OnDelete::keep;
  insert("('a', 'eth0', 'tcp')");
  other_->put(folder_ + "/agents/gone", "x");
  idle();
  EXPECT_THAT(agents(), ElementsAre("a", "gone"));
  stop();
  options_.on_delete = OnDelete::remove;
  options_.node = folder_ + "/agents/agent-{agent}";
  idle();
  EXPECT_THAT(agents(), ElementsAre("a", "agent-a", "gone"));
}

TEST_F(ReconcileTest, EmptyTableDeletesNothing) {
  other_->put(folder_ + "/agents/a", "x");
  idle();
  EXPECT_THAT(agents(), ElementsAre("a"));
  EXPECT_TRUE(says(context_, "has no row at all; no node was deleted for that"));
}

TEST_F(ReconcileTest, RowsThatGiveNoNodeAreSaidAndDeleteNothing) {
  insert("('a', 'eth0', 'tcp'), ('b/c', 'eth0', 'tcp')");
  other_->put(folder_ + "/agents/gone", "x");
  idle();
  EXPECT_THAT(agents(), ElementsAre("a", "gone"));
  EXPECT_TRUE(
      says(context_, "1 rows of millrace." + address_.table + " give no node; the first: "));
  EXPECT_TRUE(says(context_, "'b/c': column 'agent' cannot be part of a path"));
}

TEST_F(ReconcileTest, ChangesGoOnWithoutTheDatabase) {
  insert("('a', 'eth0', 'tcp')");
  services()->stop("mariadb");
  apply({change_of(inserted({{"agent", "b"}, {"interface", "eth1"}}))});
  EXPECT_THAT(agents(), ElementsAre("b"));
  EXPECT_TRUE(says(context_, "the nodes cannot be compared with millrace." + address_.table));
  services()->start("mariadb");
  later();
  EXPECT_THAT(agents(), ElementsAre("a"));
}

TEST_F(ReconcileTest, TableThatIsNotThereIsSaid) {
  sql("DROP TABLE " + address_.table);
  idle();
  EXPECT_TRUE(says(context_, "doesn't exist"));
}

/// The comparison by itself, with somebody who changes things between its steps.
class RaceTest : public ReconcileTest {
 protected:
  Reconcile::Result run(const std::function<void(int reading)>& between) {
    ZkClient client({parse_zk_servers(server()), 10s, "", false});
    client.open();
    EXPECT_TRUE(eventually([&] { return client.state() == ZkState::connected; }));
    const NodeLayout layout({options_.node, ValueFormat::toml, {"filter"}, ""});
    int reading = 0;
    Reconcile task(
        client, layout,
        [&] {
          between(++reading);
          return read_table(address_, layout.columns());
        },
        true);
    return task.run();
  }
};

TEST_F(RaceTest, NothingNewerIsOverwritten) {
  insert("('a', '', '1'), ('b', '', '1'), ('c', '', '1'), ('d', '', '1'), ('e', '', '1')");
  other_->put(folder_ + "/agents/a", "filter = \"0\"\n");
  other_->put(folder_ + "/agents/d", "filter = \"0\"\n");
  other_->put(folder_ + "/agents/gone", "filter = \"0\"\n");
  const Reconcile::Result result = run([&](int reading) {
    if (reading != 2) return;
    // Another stage has applied newer changes than this one's first look.
    other_->put(folder_ + "/agents/a", "filter = \"2\"\n");
    other_->put(folder_ + "/agents/b", "filter = \"2\"\n");
    other_->put(folder_ + "/agents/gone", "filter = \"2\"\n");
    sql("DELETE FROM " + address_.table + " WHERE agent = 'e'");
    // And this one's second look finds what is new.
    sql("UPDATE " + address_.table + " SET filter = '3' WHERE agent = 'd'");
  });
  EXPECT_EQ(get("a"), "filter = \"2\"\n");
  EXPECT_EQ(get("b"), "filter = \"2\"\n");
  EXPECT_EQ(get("c"), "filter = \"1\"\n");
  EXPECT_EQ(get("d"), "filter = \"3\"\n");
  EXPECT_EQ(get("gone"), "filter = \"2\"\n");
  EXPECT_THAT(agents(), ElementsAre("a", "b", "c", "d", "gone"));
  EXPECT_EQ(result.missing, 1U);
  EXPECT_EQ(result.different, 1U);
  EXPECT_EQ(result.superfluous, 0U);
  EXPECT_EQ(result.left, 3U);
}

TEST_F(RaceTest, WithoutDifferencesTheTableIsReadOnce) {
  insert("('a', '', '1')");
  other_->put(folder_ + "/agents/a", "filter = \"1\"\n");
  int readings = 0;
  (void)run([&](int reading) { readings = reading; });
  EXPECT_EQ(readings, 1);
}

}  // namespace
}  // namespace millrace
