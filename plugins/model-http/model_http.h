#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "millrace/plugin.h"
#include "millrace/stage.h"
#include "millrace/verdict.h"

#include "http_connection.h"
#include "labeller.h"
#include "protocol.h"

namespace millrace {

struct HttpModelOptions {
  std::string url{};
  std::string model{};
  std::string card{};
  std::uint32_t batch = 64;
  Duration max_wait = std::chrono::milliseconds(20);
  std::optional<double> min_confidence{};
  bool probabilities = false;
  std::string token{};
  std::string token_file{};
  std::string ca{};
  std::string certificate{};
  std::string key{};
  Duration connect_timeout = std::chrono::seconds(5);
  Duration answer_timeout = std::chrono::seconds(10);
  Duration retry_after_max = std::chrono::minutes(1);
  ByteSize answer_bytes = 4_MiB;
};

/// Asks a service what each session is, in one request at a time.
class ModelHttp final : public Transform<Session, Verdict> {
 public:
  explicit ModelHttp(const HttpModelOptions& options) : options_(options) {}

  void open(Context& context) override;
  [[nodiscard]] Coalesce coalesce() const override { return {options_.batch, options_.max_wait}; }
  void process(Batch<Session>& in, Output<Verdict>& out) override;

 private:
  void try_out();
  /// Asks about `count` rows from `first` on; what the service does not take is in `rejected_`.
  void ask(const Batch<Session>& in, std::size_t first, std::size_t count);
  void judge(std::size_t row, const Opinion& opinion);
  /// One request. `opinions` is filled if the answer is good; throws BadAnswer if it is not what
  /// was asked for.
  [[nodiscard]] Answer post(std::span<const Question> questions, std::vector<Opinion>& opinions);
  void wait_as_asked(const Answer& answer);

  HttpModelOptions options_;
  std::string url_;
  Context* context_ = nullptr;
  Counter* requests_ = nullptr;
  std::optional<Labeller> labeller_;
  std::optional<AnswerReader> reader_;
  std::unique_ptr<HttpConnection> connection_;
  Timestamp not_before_ = kNoTime;  ///< the service has asked to be left alone until then
  std::vector<Question> questions_;
  std::vector<std::size_t> rejected_;  ///< positions in the batch
  std::string why_rejected_;
};

void check_http_model_options(const HttpModelOptions& options, Findings& findings);

}  // namespace millrace
