#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace millrace::testing {

/// Files made by openssl: two authorities (ca, other), of which the first has signed a server that
/// is called localhost (server) and a client that is called probe (client); NAME.pem and NAME.key.
class Certificates {
 public:
  Certificates() {
    std::string pattern = std::filesystem::temp_directory_path() / "millrace-tls-XXXXXX";
    folder_ = ::mkdtemp(pattern.data()) == nullptr ? "" : pattern;
    made_ = authority("ca") && authority("other") && signed_by_ca("server", "localhost") &&
            signed_by_ca("client", "probe");
  }
  Certificates(const Certificates&) = delete;
  Certificates& operator=(const Certificates&) = delete;
  ~Certificates() { std::filesystem::remove_all(folder_); }

  [[nodiscard]] bool made() const { return made_; }
  [[nodiscard]] std::string file(const std::string& name) const { return folder_ / name; }
  /// For tests/services, "mariadb" or "mysql": the server has its certificate, and asks for those
  /// of clients.
  [[nodiscard]] std::vector<std::string> database_options(const std::string& server) const {
    std::vector<std::string> words;
    for (const auto& [name, value] : {std::pair("ca", "ca.pem"), std::pair("cert", "server.pem"),
                                      std::pair("key", "server.key")}) {
      words.insert(words.end(), {"--option", server + "=--ssl-" + name + "='" + file(value) + "'"});
    }
    return words;
  }

 private:
  [[nodiscard]] bool shell(const std::string& command) const {
    return std::system(("cd '" + folder_.string() + "' && " + command + " 2>/dev/null").c_str()) ==
           0;
  }
  [[nodiscard]] bool authority(const std::string& name) const {
    return shell("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=millrace-" + name +
                 " -keyout " + name + ".key -out " + name + ".pem");
  }
  [[nodiscard]] bool signed_by_ca(const std::string& name, const std::string& subject) const {
    return shell("openssl req -newkey rsa:2048 -nodes -subj /CN=" + subject + " -keyout " + name +
                 ".key -out " + name + ".csr") &&
           shell("openssl x509 -req -days 2 -CA ca.pem -CAkey ca.key -CAcreateserial -in " + name +
                 ".csr -out " + name + ".pem");
  }

  std::filesystem::path folder_;
  bool made_ = false;
};

}  // namespace millrace::testing
