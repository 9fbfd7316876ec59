#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "millrace/features.h"
#include "millrace/plugin.h"
#include "millrace/stage.h"

#include "idx_file.h"

namespace millrace {

struct DatasetOptions {
  std::string path{};
  std::string label{};
  std::uint32_t bytes = 784;
  Layer layer = Layer::l7;
  std::uint32_t min_payload = 2;
  bool fragments = false;
  std::uint32_t padding = 0;
  bool index = false;
};

/// Writes sessions as training data of one class: IDX files (the format of MNIST). After every call
/// the files are whole and hold what was given until then.
class SinkDataset final : public Sink<Session> {
 public:
  explicit SinkDataset(const DatasetOptions& options);

  static void check(const DatasetOptions& options, Findings& findings);
  void open(Context& context) override;
  void write(Batch<Session>& in) override;
  void flush() override;

 private:
  void begin();
  void check_layer(const Session& session) const;

  DatasetOptions options_;
  FeatureSpec spec_;
  Context* context_ = nullptr;
  IdxFile images_;
  IdxFile labels_;
  PlacedFile names_;
  PlacedFile index_;
  bool begun_ = false;  ///< what an earlier run left is gone
  std::vector<std::uint8_t> image_;
  std::uint32_t count_ = 0;
  std::uint64_t index_size_ = 0;
};

}  // namespace millrace
