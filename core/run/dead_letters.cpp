#include "run/dead_letters.h"

#include <cerrno>
#include <chrono>
#include <system_error>

#include "millrace/json.h"
#include "millrace/session.h"

namespace millrace::host {

DeadLetters::DeadLetters(const std::filesystem::path& path)
    : file_(std::fopen(path.c_str(), "ae")) {
  if (!file_) throw std::system_error(errno, std::generic_category(), path.string());
}

void DeadLetters::write(std::string_view stage, std::string_view reason, const BatchBase& items) {
  const std::string now =
      to_rfc3339(std::chrono::time_point_cast<Duration>(std::chrono::system_clock::now()));
  std::string lines;
  for (std::size_t i = 0; i < items.type().count(items); ++i) {
    {
      json::Object object(lines);
      object.member("time", now);
      object.member("stage", stage);
      object.member("reason", reason);
      object.member("type", items.type().name);
      items.type().describe(items, i, object.key("item"));
    }
    lines += '\n';
  }
  const std::lock_guard lock(mutex_);
  if (std::fwrite(lines.data(), 1, lines.size(), file_.get()) != lines.size() ||
      std::fflush(file_.get()) != 0) {
    throw std::system_error(errno, std::generic_category(), "dead letters cannot be written");
  }
}

}  // namespace millrace::host
