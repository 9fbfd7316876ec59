#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "millrace/features.h"
#include "millrace/stage.h"

namespace millrace {

struct DatasetOptions {
  std::string path{};
  std::string label{};
  std::uint32_t bytes = 784;
  Layer layer = Layer::l7;
  std::uint32_t min_payload = 2;
  bool fragments = false;
  std::uint32_t padding = 0;
};

/// Writes sessions as training data of one class: IDX files (the format of MNIST).
class SinkDataset final : public Sink<Session> {
 public:
  explicit SinkDataset(const DatasetOptions& options);

  void open(Context& context) override;
  void write(Batch<Session>& in) override;
  void flush() override;

 private:
  std::ofstream create(const std::string& name, std::span<const std::uint32_t> sizes);
  void put_count(std::ofstream& file);

  DatasetOptions options_;
  FeatureSpec spec_;
  Context* context_ = nullptr;
  std::ofstream images_;
  std::ofstream labels_;
  std::vector<std::uint8_t> row_;
  std::uint32_t rows_ = 0;
};

}  // namespace millrace
