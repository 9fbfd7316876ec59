#include "apply.h"

#include "apply_fixture.h"
#include "relay.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

TEST_F(ApplyTest, RowsBecomeNodes) {
  apply({inserted({{"agent", "a"}, {"interface", "eth0"}, {"filter", "tcp"}}),
         inserted({{"agent", "b"}, {"interface", "eth1"}, {"filter", std::nullopt}})});
  EXPECT_EQ(get("a"), "filter = \"tcp\"\ninterface = \"eth0\"\n");
  EXPECT_EQ(get("b"), "interface = \"eth1\"\n");
  apply({updated({{"agent", "a"}, {"interface", "eth0"}, {"filter", "tcp"}},
                 {{"agent", "a"}, {"interface", "eth0"}, {"filter", "udp"}})});
  EXPECT_EQ(get("a"), "filter = \"udp\"\ninterface = \"eth0\"\n");
  apply({deleted({{"agent", "b"}, {"interface", "eth1"}, {"filter", std::nullopt}})});
  EXPECT_THAT(agents(), ElementsAre("a"));
  EXPECT_EQ(count("created"), 2U);
  EXPECT_EQ(count("updated"), 1U);
  EXPECT_EQ(count("deleted"), 1U);
}

TEST_F(ApplyTest, ReplaysWriteNothing) {
  const std::vector<Change> changes{inserted({{"agent", "a"}, {"x", "1"}}),
                                    inserted({{"agent", "b"}, {"x", "1"}}),
                                    deleted({{"agent", "b"}, {"x", "1"}})};
  for (const Change& change : changes) apply({change});
  const auto before = *other_->stat(folder_ + "/agents/a");
  apply({changes[0]});
  apply({changes[2]});
  EXPECT_EQ(other_->stat(folder_ + "/agents/a")->mzxid, before.mzxid);
  EXPECT_EQ(count("unchanged"), 2U);
  // Another start of the stage, too.
  stop();
  apply({changes[0]});
  EXPECT_EQ(other_->stat(folder_ + "/agents/a")->mzxid, before.mzxid);
}

TEST_F(ApplyTest, OneBatchShowsOnlyTheEnd) {
  std::vector<Change> changes{inserted({{"agent", "a"}, {"x", "0"}})};
  for (int i = 1; i <= 50; ++i) {
    changes.push_back(updated({{"agent", "a"}, {"x", std::to_string(i - 1)}},
                              {{"agent", "a"}, {"x", std::to_string(i)}}));
  }
  changes.push_back(inserted({{"agent", "b"}, {"x", "1"}}));
  changes.push_back(deleted({{"agent", "b"}, {"x", "1"}}));
  apply(changes);
  EXPECT_EQ(get("a"), "x = \"50\"\n");
  EXPECT_EQ(other_->stat(folder_ + "/agents/a")->version, 0);
  EXPECT_THAT(agents(), ElementsAre("a"));
  EXPECT_EQ(count("superseded"), 51U);
}

TEST_F(ApplyTest, ChangeOfTheKeyMovesTheNode) {
  apply({inserted({{"agent", "a"}, {"x", "1"}})});
  apply({updated({{"agent", "a"}, {"x", "1"}}, {{"agent", "b"}, {"x", "1"}})});
  EXPECT_THAT(agents(), ElementsAre("b"));
  // Canal's messages bring only the columns that were different.
  apply({updated({{"agent", "b"}}, {{"agent", "c"}, {"x", "1"}})});
  EXPECT_THAT(agents(), ElementsAre("c"));
  apply({updated({{"x", "1"}}, {{"agent", "c"}, {"x", "2"}})});
  EXPECT_EQ(get("c"), "x = \"2\"\n");
  // Two that change places, and one that had no node before.
  apply({inserted({{"agent", "d"}, {"x", "d"}}),
         updated({{"agent", "c"}}, {{"agent", "e"}, {"x", "2"}}),
         updated({{"agent", "d"}}, {{"agent", "c"}, {"x", "d"}}),
         updated({{"agent", "e"}}, {{"agent", "d"}, {"x", "2"}}),
         updated({{"agent", ""}}, {{"agent", "f"}, {"x", "f"}})});
  EXPECT_THAT(agents(), ElementsAre("c", "d", "f"));
  EXPECT_EQ(get("c"), "x = \"d\"\n");
  EXPECT_EQ(get("d"), "x = \"2\"\n");
}

TEST_F(ApplyTest, ValuesAreQuotedAndReadTheSame) {
  const std::string hard =
      "a \"quoted\" \\ back\nline\ttab\r\x01\x7F \xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80 ${x} = [";
  const Change::Row row{{"agent", "\xC3\xA4 b"}, {"filter", hard}, {"odd.\"key\" \n", "1"}};
  for (const ValueFormat format : {ValueFormat::toml, ValueFormat::json}) {
    stop();
    options_.format = format;
    apply({inserted(row)});
    const auto values = read_values(format, get("\xC3\xA4 b"), "node");
    EXPECT_THAT(values, SizeIs(2));
    EXPECT_EQ(values.at("filter"), hard);
    EXPECT_EQ(values.at("odd.\"key\" \n"), "1");
    for (const char* name : {"interface", "filter"}) {
      options_.value = format == ValueFormat::toml ? "v = \"<{filter}>\"\nn = '''{'''"
                                                   : R"({"v": "<{filter}>", "n": "{"})";
      stop();
      apply({inserted(row)});
      const auto rendered = read_values(format, get("\xC3\xA4 b"), name);
      EXPECT_EQ(rendered.at("v"), '<' + hard + '>');
      EXPECT_EQ(rendered.at("n"), "{");
    }
    options_.value.clear();
  }
  EXPECT_THAT(rejected_, IsEmpty());
}

TEST_F(ApplyTest, NullAndEmptyRows) {
  options_.format = ValueFormat::json;
  apply({inserted({{"agent", "a"}, {"x", std::nullopt}})});
  EXPECT_EQ(get("a"), "{}\n");
  stop();
  options_.value = R"({"x": "{x}"})";
  apply({inserted({{"agent", "a"}, {"x", std::nullopt}})});
  EXPECT_EQ(get("a"), R"({"x": ""})");
}

TEST_F(ApplyTest, ColumnsThatAreNamedComeInTheirOrder) {
  options_.columns = {"server", "agent", "filter"};
  apply({inserted({{"agent", "a"}, {"filter", "f"}, {"secret", "s"}, {"server", "h"}})});
  EXPECT_EQ(get("a"), "server = \"h\"\nagent = \"a\"\nfilter = \"f\"\n");
  apply({inserted({{"agent", "b"}, {"filter", "f"}})});
  EXPECT_THAT(rejected_, ElementsAre(EndsWith("with agent = 'b': the row has no column 'server'")));
}

TEST_F(ApplyTest, RowsThatGiveNoNodeAreRejected) {
  std::vector<Change> changes;
  for (const char* agent : {"good", "a/b", "", "..", "x\ny", "\xFF", "fine"}) {
    changes.push_back(inserted({{"agent", agent}, {"x", "1"}}));
  }
  changes.push_back(inserted({{"agent", std::nullopt}, {"x", "1"}}));
  changes.push_back(inserted({{"x", "1"}}));
  changes.push_back(inserted({{"agent", "latin1"}, {"x", "\xE4"}}));
  changes.push_back(inserted({{"agent", "large"}, {"x", std::string(1000000, 'x')}}));
  changes.push_back(deleted({{"agent", "c/d"}, {"x", "1"}}));
  apply(changes);
  EXPECT_THAT(agents(), ElementsAre("fine", "good"));
  EXPECT_THAT(
      rejected_,
      ElementsAre(EndsWith("with agent = 'a/b': column 'agent' cannot be part of a path: it "
                           "has a '/' in it"),
                  EndsWith("with agent = '': column 'agent' cannot be part of a path: it is "
                           "empty"),
                  EndsWith("with agent = '..': column 'agent' cannot be part of a path: it "
                           "is a relative part"),
                  EndsWith("with agent = 'x?y': column 'agent' cannot be part of a path: it "
                           "has a character in it that ZooKeeper does not allow"),
                  EndsWith("column 'agent' cannot be part of a path: it is no UTF-8"),
                  EndsWith("with agent = NULL: column 'agent' of the path is NULL"),
                  EndsWith("with agent = missing: the row has no column 'agent'"),
                  HasSubstr("'latin1': the node's value could not be read: value:1:"),
                  EndsWith("'large': the node's value would have more than 1000000 bytes"),
                  HasSubstr("with agent = 'c/d': ")));
}

TEST_F(ApplyTest, OtherTablesAreDropped) {
  options_.tables = {"db.agent_config"};
  Change other = inserted({{"agent", "b"}});
  other.table = "users";
  Change elsewhere = inserted({{"agent", "c"}});
  elsewhere.database = "test";
  apply({inserted({{"agent", "a"}, {"x", "1"}}), other, elsewhere});
  EXPECT_THAT(agents(), ElementsAre("a"));
  EXPECT_EQ(context_.dropped_for("other-table"), 2U);
}

TEST_F(ApplyTest, DeletedRowsMayKeepTheirNodes) {
  options_.on_delete = OnDelete::keep;
  apply({inserted({{"agent", "a"}, {"x", "1"}})});
  apply({deleted({{"agent", "a"}, {"x", "1"}})});
  EXPECT_EQ(get("a"), "x = \"1\"\n");
  EXPECT_EQ(count("kept"), 1U);
}

TEST_F(ApplyTest, NodeWithNodesBelowItStays) {
  apply({inserted({{"agent", "a"}, {"x", "1"}})});
  other_->put(folder_ + "/agents/a/mine", "m");
  apply({deleted({{"agent", "a"}, {"x", "1"}})});
  EXPECT_EQ(get("a/mine"), "m");
  EXPECT_TRUE(says(context_, "because others have put nodes below it"));
}

TEST_F(ApplyTest, NodeOfAnotherUserIsRejectedAndTheRestGoesOn) {
  other_->put(folder_ + "/agents/b", "theirs");
  Other owner(server(), "them:x");
  owner.protect(folder_ + "/agents/b", ZOO_CREATOR_ALL_ACL);
  apply({inserted({{"agent", "a"}, {"x", "1"}}), inserted({{"agent", "b"}, {"x", "1"}}),
         inserted({{"agent", "c"}, {"x", "1"}})});
  EXPECT_THAT(rejected_,
              ElementsAre(HasSubstr("/agents/b' may not be changed: not authenticated")));
  EXPECT_EQ(owner.get(folder_ + "/agents/b"), "theirs");
  EXPECT_EQ(get("a"), "x = \"1\"\n");
  EXPECT_EQ(get("c"), "x = \"1\"\n");
}

TEST_F(ApplyTest, WithAuthTheNodesBelongToTheUser) {
  options_.auth = "server:secret";
  apply({inserted({{"agent", "a"}, {"x", "1"}})});
  EXPECT_EQ(get("a"), "<not authenticated>");
  EXPECT_EQ(other_->set(folder_ + "/agents/a", "x"), ZNOAUTH);
  Other owner(server(), "server:secret");
  EXPECT_EQ(owner.get(folder_ + "/agents/a"), "x = \"1\"\n");
  stop();
  options_.readable = true;
  apply({inserted({{"agent", "b"}, {"x", "1"}})});
  EXPECT_EQ(get("b"), "x = \"1\"\n");
  EXPECT_EQ(other_->set(folder_ + "/agents/b", "x"), ZNOAUTH);
}

TEST_F(ApplyTest, LostConnectionIsTransientAndTheChangeComesThrough) {
  testing::Relay relay(services()->port("zookeeper"));
  options_.server = relay.address();
  apply({inserted({{"agent", "a"}, {"x", "1"}})});
  relay.cut();
  Batch<Change> batch({updated({{"x", "1"}}, {{"agent", "a"}, {"x", "2"}})});
  EXPECT_THROW(stage().write(batch), Transient);
  EXPECT_THAT(batch.items, SizeIs(1));
  // Longer than the session lives.
  ASSERT_TRUE(eventually([&] { return other_->stat(folder_ + "/agents/a").has_value(); }));
  std::this_thread::sleep_for(3s);
  relay.mend();
  apply(batch.items);
  EXPECT_EQ(get("a"), "x = \"2\"\n");
}

TEST_F(ApplyTest, FrozenServerIsTransient) {
  apply({inserted({{"agent", "a"}, {"x", "1"}})});
  services()->pause("zookeeper");
  Batch<Change> batch({updated({{"x", "1"}}, {{"agent", "a"}, {"x", "2"}})});
  EXPECT_THROW(stage().write(batch), Transient);
  services()->resume("zookeeper");
  apply(batch.items);
  EXPECT_EQ(get("a"), "x = \"2\"\n");
}

TEST_F(ApplyTest, OptionsThatCannotBeRight) {
  const auto refusal = [this](auto change) {
    ApplyOptions options = options_;
    change(options);
    ConfigZkApply stage(options);
    try {
      stage.open(context_);
    } catch (const ConfigError& error) {
      return error.option() + ": " + error.what();
    }
    return std::string("accepted");
  };
  using O = ApplyOptions;
  EXPECT_EQ(refusal([](O& /*o*/) {}), "accepted");
  EXPECT_EQ(refusal([](O& o) { o.value = "a = \"{a}\"\nb = {b}"; }), "accepted");
  EXPECT_THAT(refusal([](O& o) { o.server = "zk"; }), StartsWith("server: "));
  EXPECT_THAT(refusal([](O& o) { o.node = "agents/{agent}"; }), StartsWith("node: "));
  EXPECT_THAT(refusal([](O& o) { o.node = "/agents/all"; }), HasSubstr("no {column} in it"));
  EXPECT_THAT(refusal([](O& o) { o.value = "a = {a"; }), StartsWith("value: "));
  EXPECT_THAT(refusal([](O& o) { o.value = "{}", o.columns = {"a"}; }), StartsWith("value: "));
  EXPECT_THAT(refusal([](O& o) { o.tables = {"agent_config"}; }), StartsWith("tables: "));
  EXPECT_THAT(refusal([](O& o) { o.auth = "x"; }), StartsWith("auth: "));
  EXPECT_THAT(refusal([](O& o) { o.reconcile = "mysql://u:secret@h/db"; }),
              StartsWith("reconcile: the table is missing"));
  EXPECT_THAT(refusal([](O& o) { o.reconcile = "mysql://u@h/db?table=t&tls=maybe"; }),
              StartsWith("reconcile: behind ? may stand"));
  EXPECT_THAT(refusal([](O& o) {
                o.reconcile = "mysql://u@h/db?table=t";
                o.tables = {"db.t", "db.u"};
              }),
              StartsWith("tables: 'reconcile' compares the nodes with db.t"));
}

}  // namespace
}  // namespace millrace
