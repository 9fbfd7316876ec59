#include "uploader.h"

#include <utility>

#include <fmt/format.h>

#include "capture_frame.h"
#include "threads.h"

namespace millrace {

Uploader::Uploader(const UploadOptions& options, Context& context, Spool& spool)
    : context_(context), spool_(spool) {
  for (std::uint32_t i = 0; i < options.uploads; ++i) {
    clients_.push_back(std::make_unique<HttpClient>(options));
  }
}

void Uploader::start() {
  for (const auto& client : clients_) {
    threads_.push_back(start_thread(
        [this, &client = *client](const std::stop_token& stop) { run(client, stop); }));
  }
}

void Uploader::stop() noexcept {
  for (std::jthread& thread : threads_) thread.request_stop();
  threads_.clear();
}

void Uploader::run(HttpClient& client, const std::stop_token& stop) noexcept {
  pthread_setname_np(pthread_self(), "upload");
  while (Chunk* const chunk = spool_.take(stop)) send(client, *chunk, stop);
}

void Uploader::send(HttpClient& client, Chunk& chunk, const std::stop_token& stop) {
  Descriptor file;
  try {
    file = spool_.read(chunk);
    if (!chunk.checked) {
      const ChunkContent content = read_chunk(file.get());
      if (!content.problem.empty() || content.packets == 0) {
        return spool_.damaged(
            chunk, content.problem.empty()
                       ? "it is empty"
                       : fmt::format("{} at byte {}", content.problem, content.good_bytes));
      }
      chunk.packets = content.packets;
      chunk.checked = true;
    }
  } catch (const std::system_error& error) {
    return spool_.damaged(chunk, error.what());
  }
  Answer answer;
  try {
    answer = client.send(chunk, file.get(), stop);
  } catch (const std::exception& error) {
    answer = {Answer::Verdict::again, error.what(), {}};
  }
  tell(chunk, answer);
  spool_.settle(chunk, answer);
}

void Uploader::tell(const Chunk& chunk, const Answer& answer) {
  const std::lock_guard lock(mutex_);
  switch (answer.verdict) {
    case Answer::Verdict::delivered:
      if (failures_ != 0) {
        const std::chrono::duration<double> seconds =
            std::chrono::steady_clock::now() - failing_since_;
        context_.info(fmt::format("uploads work again, after {} tries in {:.1f} s", failures_,
                                  seconds.count()));
      }
      failures_ = 0;
      tell_failures_.reset();
      break;
    case Answer::Verdict::rejected:
      if (tell_rejected_.due()) {
        context_.warning(fmt::format("chunk {} with {} packets is rejected: {}", chunk.name.id,
                                     chunk.packets, answer.reason));
      }
      break;
    case Answer::Verdict::again:
    case Answer::Verdict::unreachable:
    case Answer::Verdict::refused: {
      if (failures_++ == 0) failing_since_ = std::chrono::steady_clock::now();
      if (!tell_failures_.due()) break;
      const bool refused = answer.verdict == Answer::Verdict::refused;
      context_.log(refused ? LogLevel::error : LogLevel::warning,
                   fmt::format("{}; {}", answer.reason,
                               refused ? "somebody has to repair that, until then it is tried now "
                                         "and then"
                                       : "trying again"));
      break;
    }
    case Answer::Verdict::aborted:
      break;
  }
}

}  // namespace millrace
