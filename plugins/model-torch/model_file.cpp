#include "model_file.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <memory>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <openssl/evp.h>
#include <zip.h>

#include "backend.h"

namespace millrace {

namespace {

constexpr std::string_view kSaveIt =
    "save the model with torch.jit.script(model.eval()).save(FILE), or with torch.jit.trace";

[[noreturn]] void is_no_torchscript(std::string_view what) {
  throw ModelError(fmt::format("it is no TorchScript but {}; {}", what, kSaveIt));
}

struct FreeDigest {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};
struct FreeZip {
  void operator()(zip_t* archive) const { zip_discard(archive); }
};
struct FreeZipFile {
  void operator()(zip_file_t* file) const { zip_fclose(file); }
};

/// The digest, and the file's first bytes.
std::string read_all(const std::filesystem::path& file, std::string& head) {
  std::ifstream in(file, std::ios::binary);
  if (!in) throw ModelError("it cannot be read");
  const std::unique_ptr<EVP_MD_CTX, FreeDigest> digest(EVP_MD_CTX_new());
  if (!digest || EVP_DigestInit_ex(digest.get(), EVP_sha256(), nullptr) != 1) {
    throw ModelError("its SHA-256 cannot be computed");
  }
  std::vector<char> buffer(1U << 20U);
  while (in.read(buffer.data(), static_cast<std::streamsize>(buffer.size())), in.gcount() > 0) {
    const auto size = static_cast<std::size_t>(in.gcount());
    if (head.empty()) head.assign(buffer.data(), std::min<std::size_t>(size, 64));
    EVP_DigestUpdate(digest.get(), buffer.data(), size);
  }
  if (in.bad()) throw ModelError("it cannot be read to its end");
  std::array<unsigned char, EVP_MAX_MD_SIZE> hash{};
  unsigned length = 0;
  EVP_DigestFinal_ex(digest.get(), hash.data(), &length);
  std::string text;
  for (unsigned i = 0; i < length; ++i) text += fmt::format("{:02x}", hash.at(i));
  return text;
}

/// Throws: it is no zip archive, which TorchScript is.
[[noreturn]] void tell_what_else(std::string_view head) {
  using namespace std::string_view_literals;
  if (head.empty()) throw ModelError("it is empty");
  const auto byte = [head](std::size_t at) {
    return at < head.size() ? static_cast<unsigned char>(head[at]) : 0U;
  };
  if (head.starts_with("PK")) throw ModelError("it is damaged, or cut off at its end");
  if (byte(0) == 0x80 && byte(1) >= 2 && byte(1) <= 5) {
    is_no_torchscript("a pickle, as torch.save wrote it before PyTorch 1.6");
  }
  if (byte(0) == 0x08 && byte(1) < 0x20 && (byte(2) == 0x12 || byte(2) == 0x3A)) {
    is_no_torchscript("an ONNX file");
  }
  if (head.starts_with("\x89HDF"sv)) is_no_torchscript("an HDF5 file, as Keras writes it");
  if (head.size() > 9 && head[8] == '{' && byte(7) == 0) {
    is_no_torchscript("a safetensors file, which holds weights alone");
  }
  is_no_torchscript("something else (expected a zip archive, as torch.jit.save writes it)");
}

class Archive {
 public:
  Archive(const std::filesystem::path& file, std::string_view head) {
    int error = 0;
    archive_.reset(zip_open(file.c_str(), ZIP_RDONLY | ZIP_CHECKCONS, &error));
    if (archive_) return;
    if (error == ZIP_ER_NOZIP) tell_what_else(head);
    zip_error_t text;
    zip_error_init_with_code(&text, error);
    const std::string why = zip_error_strerror(&text);
    zip_error_fini(&text);
    throw ModelError(fmt::format("it is damaged ({})", why));
  }

  /// Reads every record, of which libzip compares the checksum.
  void check() {
    std::vector<char> buffer(1U << 20U);
    for (zip_int64_t i = 0; i < zip_get_num_entries(archive_.get(), 0); ++i) {
      const auto number = static_cast<zip_uint64_t>(i);
      const char* name = zip_get_name(archive_.get(), number, ZIP_FL_ENC_RAW);
      names_.emplace_back(name == nullptr ? "" : name);
      const std::unique_ptr<zip_file_t, FreeZipFile> record(
          zip_fopen_index(archive_.get(), number, 0));
      zip_int64_t size = record ? 1 : -1;
      std::string start;
      while (size > 0) {
        size = zip_fread(record.get(), buffer.data(), buffer.size());
        if (size > 0 && start.empty()) {
          start.assign(buffer.data(), static_cast<std::size_t>(std::min<zip_int64_t>(size, 16)));
        }
      }
      if (size < 0) {
        throw ModelError(
            fmt::format("it is damaged: '{}' in it is not what was written ({})", names_.back(),
                        record ? zip_file_strerror(record.get()) : zip_strerror(archive_.get())));
      }
      // name/version, where `name` is the same for all
      if (names_.back().ends_with("/version") && names_.back().find("/.data/") == std::string::npos)
        version_ = start.substr(0, start.find('\n'));
    }
  }

  [[nodiscard]] bool has(std::string_view part) const {
    for (const std::string& name : names_) {
      if (name.find(part) != std::string::npos) return true;
    }
    return false;
  }

  /// What was saved in it says nothing of PyTorch's version; records that came later do.
  [[nodiscard]] std::string written() const {
    const bool newer = has("/byteorder") || has("/.data/serialization_id");
    return fmt::format("{} (format version {})", newer ? "PyTorch 2.1 or newer" : "PyTorch",
                       version_.empty() ? "unknown" : version_);
  }

 private:
  std::unique_ptr<zip_t, FreeZip> archive_;
  std::vector<std::string> names_;
  std::string version_;
};

}  // namespace

ModelFile read_model_file(const std::filesystem::path& file) {
  std::string head;
  ModelFile found;
  found.sha256 = read_all(file, head);
  if (!head.starts_with("PK")) tell_what_else(head);
  Archive archive(file, head);
  archive.check();
  if (!archive.has("constants.pkl") || !archive.has("code/")) {
    if (archive.has("archive_format") || archive.has("serialized_exported_program") ||
        archive.has("models/model.json")) {
      is_no_torchscript("what torch.export.save writes (.pt2)");
    }
    if (archive.has("data.pkl")) {
      is_no_torchscript("what torch.save writes: a state_dict, or a module as a pickle");
    }
    is_no_torchscript("another zip archive");
  }
  found.written = archive.written();
  return found;
}

}  // namespace millrace
