#include "model_fixture.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ModelOptionsTest : public ModelHttpTest {
 protected:
  ModelOptionsTest() { options_.url = "https://service:8443/ask"; }

  std::vector<std::string> found() {
    Findings findings;
    check_http_model_options(options_, findings);
    std::vector<std::string> names;
    for (const Findings::Finding& finding : findings.list()) names.push_back(finding.option);
    return names;
  }
};

TEST_F(ModelOptionsTest, MistakesInOptions) {
  EXPECT_THAT(found(), IsEmpty());
  for (const char* url : {"", "service", "ftp://service", "https://u:p@service"}) {
    options_.url = url;
    EXPECT_THAT(found(), ElementsAre("url")) << url;
  }
  options_.url = "http://service";
  options_.ca = "ca.pem";
  EXPECT_THAT(found(), ElementsAre("ca"));
  options_ = {.url = "https://service", .model = options_.model, .key = "key.pem"};
  EXPECT_THAT(found(), ElementsAre("key"));
  options_ = {
      .url = "https://service", .model = options_.model, .token = "a", .token_file = "token"};
  EXPECT_THAT(found(), ElementsAre("token_file"));
}

TEST_F(ModelOptionsTest, TheCardIsReadAndNotTheModel) {
  CardText bad;
  bad.layer = R"("l6")";
  write_card(bad);
  EXPECT_THAT(found(), ElementsAre("model"));
  EXPECT_THAT(refusal(), HasSubstr("tiny.toml:"));
  options_.card = folder_.write("other.toml", bad.text()).string();
  EXPECT_THAT(found(), ElementsAre("card"));
  EXPECT_THAT(refusal(), HasSubstr("card: "));
  options_.card = "not-in-the-working-folder.toml";  // may be in the installation
  EXPECT_THAT(found(), IsEmpty());
  EXPECT_THAT(refusal(), HasSubstr("there is no card 'not-in-the-working-folder.toml'"));
  options_.card.clear();
  options_.model = "/absent/model.pt";
  EXPECT_THAT(found(), ElementsAre("model"));
}

TEST_F(ModelOptionsTest, FilesThatCannotBeRead) {
  options_.ca = "/absent/ca.pem";
  EXPECT_THAT(refusal(), HasSubstr("ca: cannot read '/absent/ca.pem'"));
  options_.ca.clear();
  options_.token_file = folder_.write("token", "\n").string();
  EXPECT_THAT(refusal(), HasSubstr("holds no token"));
}

TEST_F(ModelOptionsTest, APathIsKept) {
  serve();
  options_.url = server_->url() + "/ask?x=1";
  start();
  EXPECT_EQ(server_->taken().back().target, "/ask?x=1");
}

}  // namespace
}  // namespace millrace
