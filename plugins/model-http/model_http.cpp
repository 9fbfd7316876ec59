#include "model_http.h"

#include <filesystem>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>

namespace millrace {

namespace {

HttpServer http_server(const HttpModelOptions& options) {
  return {url_with_path(options.url, "/v1/verdicts"),
          options.token,
          options.token_file,
          options.ca,
          options.certificate,
          options.key,
          options.connect_timeout,
          options.retry_after_max};
}

}  // namespace

void check_http_model_options(const HttpModelOptions& options, Findings& findings) {
  check_http_server(http_server(options), findings);
  // What is not in the working folder is looked for in the installation at the start.
  std::error_code error;
  const std::filesystem::path card = card_file(options.model, options.card);
  if (card.is_absolute() || std::filesystem::exists(card, error)) {
    check_card(options.model, options.card, findings);
  }
}

void ModelHttp::open(Context& context) {
  context_ = &context;
  requests_ = &context.counter("requests");
  const auto card = context.find_file(card_file(options_.model, options_.card));
  labeller_.emplace(load_card(card, card_option(options_.card)), options_.min_confidence,
                    options_.probabilities, context);
  reader_.emplace(labeller_->card(), options_.probabilities);
  const HttpServer server = http_server(options_);
  url_ = server.url;
  connection_ = std::make_unique<HttpConnection>(server);
  const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(options_.answer_timeout);
  connection_->set(CURLOPT_TIMEOUT_MS, static_cast<long>(milliseconds.count()));
  const bool secret = !options_.token.empty() || !options_.token_file.empty();
  if (secret && url_.starts_with("http:")) {
    context.warning("without TLS the bearer token can be read on the wire");
  }
  try_out();
}

/// A question about zeros: a service that does not fit the card shows before the first packet.
void ModelHttp::try_out() {
  const std::vector<std::uint8_t> zeros(labeller_->card().features.bytes);
  const Question question{{}, zeros};
  try {
    std::vector<Opinion> opinions;
    const Answer answer = post({&question, 1}, opinions);
    switch (answer.verdict) {
      case Answer::Verdict::delivered:
        break;
      case Answer::Verdict::refused:
      case Answer::Verdict::rejected:
        throw ConfigError("url", answer.reason);
      default:
        // It may well come up after us.
        wait_as_asked(answer);
        context_->warning(answer.reason);
    }
  } catch (const BadAnswer& problem) {
    throw ConfigError("url", problem.what());
  }
}

void ModelHttp::process(Batch<Session>& in, Output<Verdict>& out) {
  if (in.items.empty()) return;
  const Timestamp now = context_->clock().now();
  // A clock that was set back would let the sessions wait for as long.
  if (not_before_ > now && not_before_ - now <= options_.retry_after_max) {
    throw Transient(fmt::format("{} has asked to wait for {:.1f} s more", url_,
                                std::chrono::duration<double>(not_before_ - now).count()));
  }
  rejected_.clear();
  labeller_->begin(in);
  while (const std::size_t rows = labeller_->next(options_.batch)) ask(in, 0, rows);
  if (!rejected_.empty()) throw Rejected(why_rejected_, std::move(rejected_));
  out.push(labeller_->finish());
}

void ModelHttp::ask(const Batch<Session>& in, std::size_t first, std::size_t count) {
  questions_.clear();
  for (std::size_t row = first; row < first + count; ++row) {
    questions_.push_back({in.items[labeller_->position(row)].info.id, labeller_->features(row)});
  }
  std::vector<Opinion> opinions;
  const Answer answer = post(questions_, opinions);
  switch (answer.verdict) {
    case Answer::Verdict::delivered:
      for (std::size_t i = 0; i < count; ++i) judge(first + i, opinions[i]);
      return;
    case Answer::Verdict::rejected:
      if (count > 1) {
        // Perhaps it is one of them only.
        ask(in, first, count / 2);
        ask(in, first + count / 2, count - count / 2);
        return;
      }
      if (rejected_.empty()) why_rejected_ = answer.reason;
      rejected_.push_back(labeller_->position(first));
      return;
    default:
      wait_as_asked(answer);
      throw Transient(answer.reason);
  }
}

void ModelHttp::judge(std::size_t row, const Opinion& opinion) {
  switch (opinion.kind) {
    case Opinion::Kind::none:
      return labeller_->not_a_number();
    case Opinion::Kind::logits:
      return labeller_->logits(row, opinion.values);
    case Opinion::Kind::probabilities:
      return labeller_->probabilities(row, opinion.values);
    case Opinion::Kind::label:
      return labeller_->label(row, opinion.index, opinion.confidence);
  }
}

Answer ModelHttp::post(std::span<const Question> questions, std::vector<Opinion>& opinions) {
  const std::string request = write_request(labeller_->card(), questions);
  AnswerBody body(options_.answer_bytes.bytes);
  connection_->set(CURLOPT_POSTFIELDS, request.c_str());
  connection_->set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.size()));
  requests_->add();
  try {
    // Without `Expect` a long request does not wait for the service's consent.
    Answer answer = connection_->post(
        {"Content-Type: application/json", "Accept: application/json", "Expect:"}, body, [&] {
          if (body.too_long()) {
            throw BadAnswer(fmt::format("the answer is longer than {} bytes, see 'answer_bytes'",
                                        options_.answer_bytes.bytes));
          }
          return std::string();
        });
    if (answer.verdict == Answer::Verdict::delivered) {
      opinions = reader_->read(body.text(), questions.size());
    }
    return answer;
  } catch (const BadAnswer& problem) {
    throw BadAnswer(fmt::format("{}: {}", url_, problem.what()));
  }
}

void ModelHttp::wait_as_asked(const Answer& answer) {
  if (answer.retry_after) not_before_ = context_->clock().now() + *answer.retry_after;
}

}  // namespace millrace

using namespace millrace;
using namespace std::chrono_literals;

MILLRACE_PLUGIN(
    "model-http", MILLRACE_VERSION,
    transform<ModelHttp, HttpModelOptions>(
        "model-http", "Labels sessions by asking a service over HTTP",
        option<&HttpModelOptions::url>(
            "url", "the service, http:// or https://; without a path /v1/verdicts is meant")
            .required(),
        option<&HttpModelOptions::model>(
            "model",
            "names the model, whose card (the same name with .toml) tells labels and input; the "
            "card is looked for in the working folder, then in the installation's data folder, "
            "and the model itself need not be there")
            .required(),
        option<&HttpModelOptions::card>(
            "card", "another card than the one beside the model; looked for in the same places"),
        option<&HttpModelOptions::batch>(
            "batch", "sessions in one request at most; 1: a request for every session")
            .between(1, 4096),
        option<&HttpModelOptions::max_wait>("max_wait",
                                            "how long sessions wait for a batch to fill")
            .between(0ns, 1min),
        option<&HttpModelOptions::min_confidence>(
            "min_confidence",
            "a less probable answer is the label 'unknown'; if not given, what the card says")
            .between(0.0, 1.0),
        option<&HttpModelOptions::probabilities>(
            "probabilities",
            "give the probabilities of all classes as well; then the service must tell them"),
        option<&HttpModelOptions::token>("token", "bearer token").secret(),
        option<&HttpModelOptions::token_file>(
            "token_file",
            "file with the bearer token; read at the start, and again after it was refused"),
        option<&HttpModelOptions::ca>(
            "ca",
            "PEM file with the authorities of the service's certificate, in place of the "
            "system's"),
        option<&HttpModelOptions::certificate>(
            "certificate", "PEM file with a certificate for this side, and its chain"),
        option<&HttpModelOptions::key>("key", "PEM file with the certificate's key"),
        option<&HttpModelOptions::connect_timeout>(
            "connect_timeout", "time for a connection, its TLS handshake included")
            .between(1ms, 1h),
        option<&HttpModelOptions::answer_timeout>(
            "answer_timeout",
            "time for a request and the whole answer; less than --drain, so that a service that "
            "hangs does not force the end")
            .between(1ms, 1h),
        option<&HttpModelOptions::retry_after_max>(
            "retry_after_max",
            "what a service's Retry-After may ask for at most; less than 'retry_for'")
            .between(0ns, 24h),
        option<&HttpModelOptions::answer_bytes>("answer_bytes", "size of an answer at most")
            .between(1_KiB, 1_GiB))
        .checked(&check_http_model_options))
