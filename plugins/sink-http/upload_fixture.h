#pragma once

/// A sink-http with a spool folder and a server of its own.

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <zstd.h>

#include "millrace/testing.h"

#include "sink_http.h"
#include "support/http_server.h"

namespace millrace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

/// Polls, so that a slow machine only takes longer.
inline bool eventually(const std::function<bool()>& holds, std::chrono::seconds patience = 30s) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(2ms);
  }
  return true;
}

/// All frames of a body.
inline std::string unpacked(const std::string& body) {
  std::string out;
  std::vector<char> frame;
  for (std::size_t at = 0; at < body.size();) {
    const std::size_t size = ZSTD_findFrameCompressedSize(body.data() + at, body.size() - at);
    if (ZSTD_isError(size) != 0) return "damaged";
    frame.resize(ZSTD_getFrameContentSize(body.data() + at, size));
    ZSTD_decompress(frame.data(), frame.size(), body.data() + at, size);
    out.append(frame.begin(), frame.end());
    at += size;
  }
  return out;
}

/// The first words of the packets' bytes, which are their numbers.
inline std::vector<std::uint32_t> numbers_in(const std::string& body) {
  const std::string raw = unpacked(body);
  std::vector<std::uint32_t> numbers;
  const auto word = [&raw](std::size_t at) {
    std::uint32_t value = 0;
    std::memcpy(&value, raw.data() + at, sizeof value);
    return value;
  };
  for (std::size_t at = 24; at + 16 <= raw.size(); at += 16 + word(at + 8)) {
    numbers.push_back(word(at + 16));
  }
  return numbers;
}

/// What a server has taken, a chunk once.
inline std::vector<std::uint32_t> numbers_in(const std::vector<Request>& requests) {
  std::vector<std::uint32_t> numbers;
  std::vector<std::string> chunks;
  for (const Request& request : requests) {
    if (std::ranges::find(chunks, request.chunk) != chunks.end()) continue;
    chunks.push_back(request.chunk);
    std::ranges::copy(numbers_in(request.body), std::back_inserter(numbers));
  }
  return numbers;
}

inline std::vector<std::uint32_t> from_to(std::uint32_t first, std::uint32_t end) {
  std::vector<std::uint32_t> numbers;
  for (; first < end; ++first) numbers.push_back(first);
  return numbers;
}

class UploadTest : public ::testing::Test {
 protected:
  UploadTest()
      : folder_(fs::temp_directory_path() /
                ("sink-http-" + std::to_string(::getpid()) + "-" +
                 ::testing::UnitTest::GetInstance()->current_test_info()->name())) {
    without_proxy();
    fs::create_directories(folder_);
    options_.spool = folder_ / "spool";
    options_.agent = "one";
    options_.retry_first = 1ms;
    options_.retry_max = 20ms;
    options_.refused_pause = 20ms;
    options_.finish = 20s;
    options_.chunk_age = 1h;
  }
  ~UploadTest() override {
    if (sink_) sink_->close();
    sink_.reset();
    fs::remove_all(folder_);
  }
  UploadTest(const UploadTest&) = delete;
  UploadTest& operator=(const UploadTest&) = delete;

  void serve(TestServer::Rule rule = {}) {
    server_ = std::make_unique<TestServer>(std::move(rule), port_);
    port_ = server_->port();
    options_.url = server_->url();
  }
  /// A port where nobody listens.
  void no_server() {
    serve();
    server_.reset();
  }
  void start() {
    context_ = std::make_unique<testing::TestContext>();
    context_->manual_clock.set(Timestamp(1000000000s));
    sink_ = std::make_unique<SinkHttp>(options_);
    try {
      sink_->open(*context_);
    } catch (...) {
      sink_.reset();
      throw;
    }
  }
  /// The end of a run.
  void finish() {
    sink_->flush();
    close();
  }
  void close() {
    sink_->close();
    sink_.reset();
  }
  /// The process is gone, for the next one: nothing is flushed, the folder is as it was.
  void crash() {
    const fs::path copy = folder_ / "copy";
    fs::remove_all(copy);
    fs::copy(options_.spool, copy, fs::copy_options::recursive);
    close();
    fs::remove_all(options_.spool);
    fs::rename(copy, options_.spool);
  }

  /// `count` packets of `size` bytes that go on counting.
  void write(std::uint32_t count, std::uint32_t size = 100, LinkType link = LinkType::ethernet) {
    Batch<Packet> batch;
    const auto bytes = std::make_shared<std::string>();
    for (std::uint32_t i = 0; i < count; ++i) {
      std::string packet(size, static_cast<char>(random_()));
      for (char& c : packet) c = static_cast<char>(random_());
      const std::uint32_t number = next_++;
      std::memcpy(packet.data(), &number, sizeof number);
      *bytes += packet;
    }
    for (std::uint32_t i = 0; i < count; ++i) {
      batch.items.push_back({Timestamp(1700000000s + 1ms * i),
                             reinterpret_cast<const std::byte*>(bytes->data()) + i * size, size,
                             size + 5, link});
    }
    batch.storage = bytes;
    batch.receipt = receipts_.make();
    give(batch);
  }
  void tick(Duration by = 0ns) {
    context_->manual_clock.advance(by);
    Batch<Packet> empty;
    give(empty);
  }
  void give(Batch<Packet>& batch) {
    sink_->write(batch);
    batch.receipt.done();  // as the host does
  }

  std::uint64_t count(const std::string& name) { return context_->counter(name).value(); }
  [[nodiscard]] std::vector<std::string> files(const std::string& where = "") const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(fs::path(options_.spool) / where)) {
      if (entry.is_regular_file() && entry.path().filename() != "lock") {
        names.push_back(entry.path().filename());
      }
    }
    std::ranges::sort(names);
    return names;
  }
  [[nodiscard]] std::uint64_t spooled() const {
    std::uint64_t bytes = 0;
    for (const auto& entry : fs::recursive_directory_iterator(options_.spool)) {
      std::error_code error;
      if (entry.is_regular_file(error)) bytes += entry.file_size(error);
    }
    return bytes;
  }
  [[nodiscard]] static std::string content(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  [[nodiscard]] bool logged(const std::string& part) const {
    for (const auto& [level, message] : context_->messages()) {
      if (message.find(part) != std::string::npos) return true;
    }
    return false;
  }

  fs::path folder_;
  UploadOptions options_;
  std::unique_ptr<testing::TestContext> context_;
  testing::WatchedReceipt receipts_;
  std::unique_ptr<TestServer> server_;
  std::unique_ptr<SinkHttp> sink_;
  std::uint16_t port_ = 0;
  std::uint32_t next_ = 0;
  std::minstd_rand random_{7};
};

}  // namespace millrace
