#include "row_format.h"

#include <limits>

#include "file_fixture.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST_F(SinkFileTest, JsonLineHasTheDocumentedFieldsInOrder) {
  run(with(RowFormat::jsonl), {example()});
  EXPECT_EQ(
      content(),
      R"({"session":"abababababababababababababababab","agent":"probe, 1","protocol":"tcp",)"
      R"("src":"10.0.0.2","src_port":40000,"dst":"10.0.0.1","dst_port":80,"epoch":7,)"
      R"("first_seen":"1970-01-01T00:00:01.000000000Z","last_seen":"1970-01-01T00:00:02.000000001Z",)"
      R"("packets":3,"bytes":300,"payload_bytes":120,"reason":"full","label":"say \"hi\", all",)"
      R"("confidence":0.9877,"model":"m"})"
      "\n");
}

TEST_F(SinkFileTest, JsonIsReadBackByAnotherParser) {
  if (no_python()) GTEST_SKIP() << "python3 is not installed";
  const std::vector<std::string> names = {"a\"b", "c"};
  const std::vector<float> probabilities = {0.25F, 0.75F};
  Verdict odd = example();
  odd.label = "line\nend \x01 \xFF";
  odd.confidence = std::numeric_limits<float>::quiet_NaN();
  odd.probabilities = probabilities;
  odd.class_names = names;
  run(with(RowFormat::jsonl), {odd, ipv6_example()});
  EXPECT_EQ(python("import json, sys\n"
                   "for line in open(sys.argv[1], encoding='utf-8'):\n"
                   "  v = json.loads(line)\n"
                   "  print(len(v), ascii(v['label']), v['confidence'], v.get('probabilities'))\n"),
            "18 'line\\nend \\x01 \\ufffd' None {'a\"b': 0.25, 'c': 0.75}\n"
            "17 'say \"hi\", all' 0.9877 None\n");
}

TEST_F(SinkFileTest, TableNamesTheClassThatTheModelWasNotSureOf) {
  const std::vector<std::string> names = {"a", "b\n"};
  Verdict unsure = example();
  unsure.label = "unknown";
  unsure.label_index = 1;
  unsure.class_names = names;
  Verdict sure = unsure;
  sure.label = "a";
  sure.label_index = 0;
  Verdict none = unsure;
  none.label_index = -1;
  run(with(RowFormat::table), {unsure, sure, none});
  EXPECT_THAT(content(), HasSubstr("0.9877  unknown (b?\?)\n"));
  EXPECT_THAT(content(), HasSubstr("0.9877  a\n"));
  EXPECT_THAT(content(), HasSubstr("0.9877  unknown\n"));
}

TEST_F(SinkFileTest, CsvQuotesWhatNeedsIt) {
  run(with(RowFormat::csv), {example()});
  EXPECT_THAT(content(), StartsWith("session,agent,protocol,src,src_port,"));
  EXPECT_THAT(content(), HasSubstr(",\"probe, 1\",tcp,10.0.0.2,40000,10.0.0.1,80,7,1970-"));
  EXPECT_THAT(content(), HasSubstr(",full,\"say \"\"hi\"\", all\",0.9877,m\r\n"));
}

TEST_F(SinkFileTest, CsvIsReadBackByAnotherParser) {
  if (no_python()) GTEST_SKIP() << "python3 is not installed";
  Verdict odd = example();
  odd.label = "two\r\nlines, \"quoted\"";
  run(with(RowFormat::csv), {odd, example()});
  EXPECT_EQ(python("import csv, sys\n"
                   "rows = list(csv.reader(open(sys.argv[1], newline=''), strict=True))\n"
                   "print([len(row) for row in rows], rows[0][14:], rows[1][14:])\n"),
            "[17, 17, 17] ['label', 'confidence', 'model'] "
            "['two\\r\\nlines, \"quoted\"', '0.9877', 'm']\n");
}

TEST_F(SinkFileTest, TableColumnsStandBelowEachOther) {
  Verdict unlabelled_one = example();
  unlabelled_one.label = {};
  run(with(RowFormat::table), {example(), ipv6_example(), unlabelled_one});
  const std::vector<std::string> all = lines(content());
  ASSERT_GE(all.size(), 5U);
  EXPECT_EQ(
      all[0],
      "first seen (UTC)     proto src                   dst                     pkts     bytes"
      "  reason    conf  label");
  EXPECT_EQ(
      all[1],
      "1970-01-01 00:00:01  tcp   10.0.0.2:40000        10.0.0.1:80                3       300"
      "  full    0.9877  say \"hi\", all");
  EXPECT_EQ(all[2], "1970-01-01 00:00:01  tcp   [bbbb:bbbb:bbbb:bbbb:bbbb:bbbb:bbbb:bbbb]:65535");
  EXPECT_EQ(
      all[3],
      "                       [aaaa:aaaa:aaaa:aaaa:aaaa:aaaa:aaaa:aaaa]:65534  65535       300"
      "  full    0.9877  say \"hi\", all");
  EXPECT_THAT(all[4], ::testing::EndsWith("  full         -  -"));
  for (std::size_t i = 0; i < 5; ++i) EXPECT_LE(all[i].size(), 120U) << all[i];
}

TEST_F(SinkFileTest, TableEndsWithASummaryByLabel) {
  std::vector<Verdict> rows(4, example());
  rows[0].label = rows[1].label = rows[2].label = "web";
  rows[0].confidence = rows[1].confidence = 1;
  rows[2].confidence = 0.25F;
  rows[3].label = {};
  run(with(RowFormat::table), rows);
  const std::vector<std::string> all = lines(content());
  EXPECT_THAT(std::vector(all.end() - 5, all.end()),
              ElementsAre("", "label    sessions   share  mean confidence",
                          "web             3   75.0%           0.7500",
                          "-               1   25.0%                -", "total           4"));
}

TEST_F(SinkFileTest, SummaryCanBeLeftOut) {
  FileOptions options = with(RowFormat::table);
  options.summary = false;
  run(options, {example()});
  EXPECT_EQ(lines(content()).size(), 2U);
}

TEST_F(SinkFileTest, TableLabelDoesNotSteerTheTerminal) {
  Verdict hostile = example();
  hostile.label = "\x1B[2Jx\r\n";
  run(with(RowFormat::table), {hostile});
  EXPECT_EQ(content().find('\x1B'), std::string::npos);
  EXPECT_THAT(lines(content())[1], ::testing::EndsWith("?[2Jx??"));
}

}  // namespace
}  // namespace millrace
