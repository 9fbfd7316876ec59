#pragma once

/// A model-http with a card in a folder of its own and a service that answers as a test says.

#include <chrono>
#include <cmath>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "millrace/testing.h"

#include "model_http.h"
#include "support/http_server.h"
#include "tests/fixture.h"

namespace millrace {

using namespace std::chrono_literals;
using model_torch_test::Bytes;
using model_torch_test::CardText;
using model_torch_test::sessions_of;
using Json = nlohmann::json;

/// The bytes of base64.
inline Bytes unpacked(const std::string& text) {
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  Bytes bytes;
  std::uint32_t bits = 0;
  int have = 0;
  for (const char c : text) {
    const std::size_t digit = digits.find(c);
    if (digit == std::string::npos) break;
    bits = bits << 6U | static_cast<std::uint32_t>(digit);
    have += 6;
    if (have < 8) continue;
    have -= 8;
    bytes.push_back(static_cast<std::uint8_t>(bits >> static_cast<unsigned>(have)));
  }
  return bytes;
}

class ModelHttpTest : public ::testing::Test {
 protected:
  ModelHttpTest() {
    without_proxy();
    options_.model = (folder_.path() / "tiny.pt").string();  // only its card is there
    write_card({});
  }

  void write_card(const CardText& card) { (void)folder_.write("tiny.toml", card.text()); }

  /// What the tests' model says: the first byte names the class, 9 stands for no answer.
  static std::string opinions(const Request& request) {
    Json verdicts = Json::array();
    const Json asked = Json::parse(request.body);
    for (const Json& session : asked["sessions"]) {
      const Bytes bytes = unpacked(session["features"].get<std::string>());
      std::vector<double> p(3, 0.05);
      if (bytes.at(0) < p.size()) p[bytes[0]] = 0.9;
      verdicts.push_back(bytes[0] == 9 ? Json() : Json{{"probabilities", p}});
    }
    return Json{{"verdicts", verdicts}}.dump();
  }
  static Reply good() { return {.made = &opinions}; }
  /// The same body to every question.
  static Reply says(const std::string& body) { return {200, body}; }

  void serve(TestServer::Rule rule = [](const Request&) { return good(); }) {
    server_.reset();  // its port is free
    server_ = std::make_unique<TestServer>(std::move(rule), port_);
    port_ = server_->port();
    options_.url = server_->url();
  }
  void start() {
    stage_ = std::make_unique<ModelHttp>(options_);
    stage_->open(context_);
  }
  /// What `open` has against it: "option: message".
  std::string refusal() {
    try {
      start();
    } catch (const ConfigError& error) {
      return error.option() + ": " + error.what();
    }
    return "opened";
  }

  /// Throws what the stage throws.
  std::vector<Verdict> ask(const std::vector<Bytes>& payloads) {
    Batch<Session> sessions = sessions_of(payloads);
    return ask(sessions);
  }
  std::vector<Verdict> ask(Batch<Session>& sessions) {
    recorder_.batches.clear();
    Output<Verdict> out(recorder_);
    stage_->process(sessions, out);
    return recorder_.items();
  }
  /// Again and again, as the host does it; how often it was put off.
  int ask_until_answered(const std::vector<Bytes>& payloads) {
    for (int failures = 0;; ++failures) {
      try {
        (void)ask(payloads);
        return failures;
      } catch (const Transient&) {
        if (failures > 1000) throw;
        std::this_thread::sleep_for(2ms);
      }
    }
  }
  /// What comes of a batch: "transient: ...", "rejected [positions]: ...", "error: ...".
  std::string outcome(const std::vector<Bytes>& payloads) {
    try {
      (void)ask(payloads);
    } catch (const Transient& error) {
      return std::string("transient: ") + error.what();
    } catch (const Rejected& error) {
      return "rejected " + Json(error.items()).dump() + ": " + error.what();
    } catch (const std::runtime_error& error) {
      return std::string("error: ") + error.what();
    }
    return "answered";
  }
  std::vector<std::string> labels() {
    std::vector<std::string> list;
    for (const Verdict& verdict : recorder_.items()) list.emplace_back(verdict.label);
    return list;
  }
  /// How many sessions each request was about, that of the start left out.
  [[nodiscard]] std::vector<std::size_t> sizes() const {
    std::vector<std::size_t> list;
    for (const Request& request : server_->taken()) {
      list.push_back(Json::parse(request.body)["sessions"].size());
    }
    list.erase(list.begin());
    return list;
  }
  [[nodiscard]] bool logged(const std::string& part) const {
    for (const auto& [level, message] : context_.messages()) {
      if (message.find(part) != std::string::npos) return true;
    }
    return false;
  }

  model_torch_test::TestFolder folder_;
  HttpModelOptions options_;
  testing::TestContext context_;
  testing::Recorder<Verdict> recorder_;
  std::unique_ptr<TestServer> server_;
  std::unique_ptr<ModelHttp> stage_;
  std::uint16_t port_ = 0;
};

}  // namespace millrace
