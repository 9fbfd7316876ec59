#pragma once

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <unistd.h>

#include "millrace/session_table.h"

namespace millrace::model_torch_test {

inline std::filesystem::path source_root() {
  const char* root = std::getenv("MILLRACE_SOURCE");
  return root != nullptr ? root : ".";
}

/// A folder of the test program's own, removed at its end.
class TestFolder {
 public:
  TestFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "model-torch-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    path_ = name;
  }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;
  ~TestFolder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::filesystem::path write(const std::string& name,
                                            const std::string& text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

inline std::string read_bytes(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// A card with one of its lines different, or without it.
struct CardText {
  std::string name = R"("tiny")";
  std::string labels = R"(["zero", "one", "two"])";
  std::string more;  ///< further lines above [input]
  std::string bytes = "8";
  std::string layer = R"("l7")";
  std::string dtype = R"("uint8")";
  std::string shape = "[8]";
  std::string input_more;  ///< further lines of [input]

  [[nodiscard]] std::string text() const {
    return "name = " + name + "\nversion = \"1\"\nabout = \"a test\"\nlabels = " + labels + "\n" +
           more + "\n[input]\nbytes = " + bytes + "\nlayer = " + layer + "\ndtype = " + dtype +
           "\nshape = " + shape + "\n" + input_more + "\n";
  }
};

/// ["c0", "c1", ...]
inline std::string many_labels(int n) {
  std::string list;
  for (int i = 0; i < n; ++i) list += (i == 0 ? "[\"c" : ", \"c") + std::to_string(i) + '"';
  return list + "]";
}

using Bytes = std::vector<std::uint8_t>;

/// Sessions of one packet each; its payload is one of `payloads`.
inline Batch<Session> sessions_of(const std::vector<Bytes>& payloads, Layer layer = Layer::l7) {
  SessionBatch batch;
  for (const Bytes& payload : payloads) {
    SessionPacket packet;
    packet.data = reinterpret_cast<const std::byte*>(payload.data());
    packet.size = static_cast<std::uint32_t>(payload.size());
    Session session;
    session.layer = layer;
    session.info.packets = static_cast<std::uint32_t>(batch.size() + 1);  // tells them apart
    if (!payload.empty()) session.packets = std::span(&packet, 1);
    batch.add(session);
  }
  return batch.take();
}

}  // namespace millrace::model_torch_test
