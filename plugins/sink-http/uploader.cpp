#include "uploader.h"

#include <utility>

#include <fmt/format.h>

#include "capture_frame.h"
#include "threads.h"

namespace millrace {

Uploader::Uploader(const UploadOptions& options, Context& context, Spool& spool)
    : context_(context), server_(context.condition("server")), spool_(spool) {
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
  while (Chunk* const chunk = spool_.take(stop)) {
    try {
      upload(client, *chunk, stop);
    } catch (const std::exception&) {
      continue;  // no memory even to say so; the chunk stays for the next start
    }
  }
}

void Uploader::upload(HttpClient& client, Chunk& chunk, const std::stop_token& stop) {
  Descriptor file;
  std::string problem;
  try {
    file = spool_.read(chunk);
    if (!chunk.checked) {
      const ChunkContent content = read_chunk(file.get());
      if (!content.problem.empty() || content.packets == 0) {
        problem =
            fmt::format("{} at byte {}", content.problem.empty() ? "no packet" : content.problem,
                        content.good_bytes);
      }
      chunk.packets = content.packets;
      chunk.checked = true;
    }
  } catch (const std::system_error& error) {
    problem = error.what();
  }
  if (!problem.empty()) return spool_.damaged(chunk, problem);
  const Answer answer = send(client, chunk, file.get(), stop);
  tell(chunk, answer);
  spool_.settle(chunk, answer);
}

Answer Uploader::send(HttpClient& client, Chunk& chunk, int file, const std::stop_token& stop) {
  try {
    return client.send(chunk, file, stop);
  } catch (const std::exception& error) {
    return {Answer::Verdict::again, error.what(), {}};
  }
}

void Uploader::tell(const Chunk& chunk, const Answer& answer) {
  const std::lock_guard lock(mutex_);
  switch (answer.verdict) {
    case Answer::Verdict::delivered:
      server_.holds();
      break;
    case Answer::Verdict::rejected:
      server_.holds();
      if (tell_rejected_.due()) {
        context_.warning(fmt::format("chunk {} with {} packets is rejected: {}", chunk.name.id,
                                     chunk.packets, answer.reason));
      }
      break;
    case Answer::Verdict::again:
    case Answer::Verdict::unreachable:
      server_.fails(fmt::format("{}; trying again", answer.reason));
      break;
    case Answer::Verdict::refused:
      server_.fails(fmt::format("{}; somebody has to repair that, until then it is tried now and "
                                "then",
                                answer.reason),
                    Condition::Grace::none);
      break;
    case Answer::Verdict::aborted:
      break;
  }
}

}  // namespace millrace
