#include <string_view>

#include <ATen/Parallel.h>
#include <malloc.h>
#include <torch/script.h>

#include "backend.h"

namespace millrace {

namespace {

/// libtorch's messages go on with stack traces.
std::string first_line(const char* message) {
  std::string_view text(message);
  while (!text.empty() && (text.front() == '\n' || text.front() == ' ')) text.remove_prefix(1);
  text = text.substr(0, text.find('\n'));
  constexpr std::size_t kMost = 300;
  return std::string(text.substr(0, kMost));
}

/// glibc gives large blocks back to the kernel after every batch and asks for them again; that
/// costs a third of the speed of inference.
void keep_memory() {
  constexpr int kKeep = 256 << 20;
  mallopt(M_MMAP_THRESHOLD, kKeep);
  mallopt(M_TRIM_THRESHOLD, kKeep);
}

class TorchModel final : public Model {
 public:
  TorchModel(torch::jit::Module module, TensorSpec input)
      : module_(std::move(module)), input_(std::move(input)) {}

  std::size_t run(std::span<const std::uint8_t> bytes, std::size_t rows,
                  std::vector<float>& output) override {
    const c10::InferenceMode inference;
    try {
      std::vector<std::int64_t> shape = {static_cast<std::int64_t>(rows)};
      shape.insert(shape.end(), input_.shape.begin(), input_.shape.end());
      // from_blob only reads, but has no const.
      at::Tensor tensor = at::from_blob(const_cast<std::uint8_t*>(bytes.data()), shape, at::kByte);
      if (input_.floating) tensor = tensor.to(at::kFloat).mul_(input_.scale);
      const c10::IValue result = module_.forward({tensor});
      if (!result.isTensor()) throw ModelError("the model does not give a tensor");
      const at::Tensor logits = result.toTensor().to(at::kFloat).contiguous();
      if (logits.dim() != 2 || logits.size(0) != static_cast<std::int64_t>(rows)) {
        throw ModelError("the model gives a tensor of shape " + shape_text(logits) + " for " +
                         std::to_string(rows) + " sessions; expected [sessions, classes]");
      }
      const auto* data = logits.data_ptr<float>();
      output.assign(data, data + logits.numel());
      return static_cast<std::size_t>(logits.size(1));
    } catch (const ModelError&) {
      throw;
    } catch (const std::exception& error) {
      throw ModelError(first_line(error.what()));
    }
  }

 private:
  static std::string shape_text(const at::Tensor& tensor) {
    std::string text = "[";
    for (const std::int64_t size : tensor.sizes())
      text += (text.size() > 1 ? ", " : "") + std::to_string(size);
    return text + "]";
  }

  torch::jit::Module module_;
  TensorSpec input_;
};

std::shared_ptr<Model> load(const std::filesystem::path& file, const TensorSpec& input,
                            int threads) {
  keep_memory();
  at::set_num_threads(threads);
  // oneDNN chooses its way by the number of rows, and the last bits of a row's result with it.
  // Without it they do not depend on the batch; large batches cost more.
  at::globalContext().setUserEnabledMkldnn(false);
  // The profiling executor would compile the graph anew during the first batches.
  torch::jit::getProfilingMode() = false;
  const c10::InferenceMode inference;
  try {
    torch::jit::Module module = torch::jit::load(file.string(), at::kCPU);
    module.eval();
    try {
      module = torch::jit::freeze(module);
    } catch (const std::exception&) {
      // Frozen already, or it cannot be: it runs as it is.
    }
    return std::make_shared<TorchModel>(std::move(module), input);
  } catch (const std::exception& error) {
    throw ModelError(first_line(error.what()));
  }
}

}  // namespace

}  // namespace millrace

extern "C" MILLRACE_EXPORT const millrace::TorchBackend millrace_torch_backend;
const millrace::TorchBackend millrace_torch_backend = {&millrace::load};
