#include <string_view>

#include <ATen/Parallel.h>
#include <malloc.h>
#include <torch/csrc/api/include/torch/version.h>
#include <torch/script.h>

#include "backend.h"

/// libtorch leaves OpenBLAS' own threads alone; null where the BLAS library is another one.
extern "C" void openblas_set_num_threads(int threads) __attribute__((weak));

namespace millrace {

namespace {

/// libtorch's messages go on with stack traces. That of a TorchScript model that fails begins with
/// one, and its last line is the error.
std::string first_line(const char* message) {
  std::string_view text(message);
  if (text.find("TorchScript") != std::string_view::npos) {
    for (const std::string_view kind : {"RuntimeError: ", "torch.jit.Error: "}) {
      const std::size_t at = text.rfind(kind);
      if (at != std::string_view::npos) text.remove_prefix(at + kind.size());
    }
  }
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
  TorchModel(torch::jit::Module module, TensorSpec input, std::string weights)
      : module_(std::move(module)), input_(std::move(input)), weights_(std::move(weights)) {}

  std::size_t run(std::span<const std::uint8_t> bytes, std::size_t rows,
                  std::vector<float>& output) override {
    // The number of OpenMP threads belongs to the calling thread.
    thread_local const bool kThreadsSet = (at::init_num_threads(), true);
    (void)kThreadsSet;
    const c10::InferenceMode inference;
    try {
      std::vector<std::int64_t> shape = {static_cast<std::int64_t>(rows)};
      shape.insert(shape.end(), input_.shape.begin(), input_.shape.end());
      // from_blob only reads, but has no const.
      at::Tensor tensor = at::from_blob(const_cast<std::uint8_t*>(bytes.data()), shape, at::kByte);
      if (input_.floating) tensor = tensor.to(at::kFloat).mul_(input_.scale);
      const c10::IValue result = module_.forward({tensor});
      if (!result.isTensor()) {
        throw ModelError("the model does not give a tensor but a " + kind_of(result) +
                         "; expected one tensor, [sessions, classes]");
      }
      if (result.toTensor().scalar_type() != at::kFloat) {
        throw ModelError(std::string("the model gives numbers of the type ") +
                         c10::toString(result.toTensor().scalar_type()) + "; expected Float" +
                         weights_);
      }
      const at::Tensor logits = result.toTensor().contiguous();
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
      throw ModelError(first_line(error.what()) + weights_);
    }
  }

 private:
  static std::string kind_of(const c10::IValue& value) {
    if (value.isTuple()) {
      return "tuple of " + std::to_string(value.toTupleRef().elements().size());
    }
    if (value.isList()) return "list of " + std::to_string(value.toListRef().size());
    if (value.isGenericDict()) return "dict";
    return value.tagKind();
  }
  static std::string shape_text(const at::Tensor& tensor) {
    std::string text = "[";
    for (const std::int64_t size : tensor.sizes())
      text += (text.size() > 1 ? ", " : "") + std::to_string(size);
    return text + "]";
  }

  torch::jit::Module module_;
  TensorSpec input_;
  std::string weights_;  ///< what is unusual about them, for errors
};

/// Of weights that are not Float, where that may be why a model does not run.
std::string unusual_weights(const torch::jit::Module& module) {
  const auto look = [](const at::Tensor& tensor) -> std::string {
    if (!tensor.is_floating_point() || tensor.scalar_type() == at::kFloat) return {};
    return std::string("; its weights are ") + c10::toString(tensor.scalar_type()) +
           ": save the model after model.float()";
  };
  for (const at::Tensor& tensor : module.parameters()) {
    if (std::string text = look(tensor); !text.empty()) return text;
  }
  for (const at::Tensor& tensor : module.buffers()) {
    if (std::string text = look(tensor); !text.empty()) return text;
  }
  for (const torch::jit::Module& part : module.modules()) {
    for (const auto& attribute : part.named_attributes(false)) {
      if (!attribute.value.isTensor()) continue;
      if (std::string text = look(attribute.value.toTensor()); !text.empty()) return text;
    }
  }
  return {};
}

int use_threads(int threads) {
  static const int kInForce = [threads] {
    keep_memory();
    // The profiling executor would compile the graph anew during the first batches.
    torch::jit::getProfilingMode() = false;
    at::set_num_threads(threads);
    at::set_num_interop_threads(1);
    if (openblas_set_num_threads != nullptr) openblas_set_num_threads(threads);
    return threads;
  }();
  return kInForce;
}

std::shared_ptr<Model> load(const std::filesystem::path& file, const TensorSpec& input) {
  const c10::InferenceMode inference;
  try {
    torch::jit::Module module = torch::jit::load(file.string(), at::kCPU);
    module.eval();
    std::string weights = unusual_weights(module);
    try {
      module = torch::jit::freeze(module);
    } catch (const std::exception&) {
      // Frozen already, or it cannot be: it runs as it is.
    }
    return std::make_shared<TorchModel>(std::move(module), input, std::move(weights));
  } catch (const std::exception& error) {
    throw ModelError(first_line(error.what()));
  }
}

}  // namespace

}  // namespace millrace

extern "C" MILLRACE_EXPORT const millrace::TorchBackend millrace_torch_backend;
const millrace::TorchBackend millrace_torch_backend = {&millrace::use_threads, TORCH_VERSION,
                                                       &millrace::load};
