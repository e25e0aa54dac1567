#include "parallel/segments.h"

#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty_strided.h>
#include <c10/core/StorageImpl.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "base/error.h"
#include "kernels/meta_memory.h"
#include "parallel/activation_offload.h"
#include "parallel/saved_tensors.h"

namespace triptych {

namespace {

thread_local LayerScope* current_scope = nullptr;

/// Where a tensor's elements lie in its storage, in elements.
struct Extent {
  int64_t begin = 0, end = 0;
  explicit Extent(const at::Tensor& tensor) : begin(tensor.storage_offset()), end(begin) {
    if (tensor.numel() == 0) return;
    for (int64_t d = 0; d < tensor.dim(); ++d) end += (tensor.size(d) - 1) * tensor.stride(d);
    ++end;
  }
};

bool has_plain_storage(const at::Tensor& tensor) {
  return tensor.layout() == at::kStrided && tensor.has_storage() &&
         (!tensor.is_meta() || planning());
}

class Kept : public PackedTensor {
 public:
  explicit Kept(at::Tensor tensor) : tensor_(std::move(tensor)) {}
  at::Tensor unpack() override { return tensor_; }

 private:
  at::Tensor tensor_;
};

/// Results that are made when they are first asked for, and freed with the last who may ask.
class MadeAgain {
 public:
  MadeAgain(const std::vector<at::Tensor>& results,
            std::vector<std::unique_ptr<PackedTensor>> inputs, TensorFunction body)
      : inputs_(std::move(inputs)), body_(std::move(body)) {
    for (const auto& result : results) strides_.push_back(result.strides().vec());
  }

  at::Tensor result(size_t i) {
    const std::lock_guard lock(mutex_);  // backward may use a thread for each device
    if (results_.empty()) make();
    return results_.at(i);
  }

 private:
  void make() {
    const at::NoGradGuard no_grad;
    const SavedTensorScope all_kept(nullptr);
    const LayerScope nothing_chosen;
    std::vector<at::Tensor> inputs;
    for (const auto& input : inputs_) inputs.push_back(input->unpack());
    results_ = body_(inputs);
    require(results_.size() == strides_.size(), "recompute: ", results_.size(),
            " results were made again of ", strides_.size(), "; this is a bug");
    for (size_t i = 0; i < results_.size(); ++i) {
      // Without gradients an operator may work in place; kernels choose their way by the strides.
      if (results_[i].strides() == strides_[i]) continue;
      const auto same = at::empty_strided(results_[i].sizes(), strides_[i], results_[i].options());
      results_[i] = same.copy_(results_[i]);
    }
    inputs_.clear();
    body_ = nullptr;
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<PackedTensor>> inputs_;
  TensorFunction body_;
  std::vector<std::vector<int64_t>> strides_;
  std::vector<at::Tensor> results_;
};

/// A view of a result that was declared.
class PackedView : public PackedTensor {
 public:
  PackedView(std::shared_ptr<MadeAgain> source, size_t number, const at::Tensor& result,
             const at::Tensor& view)
      : source_(std::move(source)),
        number_(number),
        sizes_(view.sizes().vec()),
        strides_(view.strides().vec()),
        offset_(view.storage_offset() - result.storage_offset()) {}

  at::Tensor unpack() override {
    const auto result = source_->result(number_);
    return result.as_strided(sizes_, strides_, result.storage_offset() + offset_);
  }

 private:
  std::shared_ptr<MadeAgain> source_;
  size_t number_;
  std::vector<int64_t> sizes_, strides_;
  int64_t offset_;
};

}  // namespace

class LayerScope::Policy : public SavedTensorPolicy {
 public:
  Policy(const Layer& layer, ActivationOffload* offload) : offload_(offload) {
    if (offload == nullptr) return;
    for (const auto& p : layer.parameters()) {
      if (has_plain_storage(p->value))
        parameters_.push_back(p->value.storage().unsafeGetStorageImpl());
    }
  }

  void declare(const std::vector<at::Tensor>& results, const std::vector<at::Tensor>& inputs,
               TensorFunction body) {
    std::vector<std::unique_ptr<PackedTensor>> packed;
    for (const auto& input : inputs) packed.push_back(pack(input));
    const auto source = std::make_shared<MadeAgain>(results, std::move(packed), std::move(body));
    for (size_t i = 0; i < results.size(); ++i) {
      if (has_plain_storage(results[i])) declared_.push_back({results[i].detach(), source, i});
    }
  }

  std::unique_ptr<PackedTensor> pack(const at::Tensor& tensor) override {
    if (has_plain_storage(tensor)) {
      if (auto packed = pack_declared(tensor)) return packed;
      if (offload_ != nullptr && !is_parameter(tensor)) {
        if (auto packed = offload_->pack(tensor)) return packed;
      }
    }
    return std::make_unique<Kept>(tensor.is_leaf() ? tensor : tensor.detach());
  }

 private:
  /// The result itself is held while the layer runs: its storage is not given to another tensor.
  struct Declared {
    at::Tensor result;
    std::shared_ptr<MadeAgain> source;
    size_t number;
  };

  std::unique_ptr<PackedTensor> pack_declared(const at::Tensor& tensor) const {
    const Extent wanted(tensor);
    for (const auto& d : declared_) {
      if (!d.result.is_alias_of(tensor) || d.result.scalar_type() != tensor.scalar_type()) continue;
      const Extent whole(d.result);
      if (wanted.begin >= whole.begin && wanted.end <= whole.end)
        return std::make_unique<PackedView>(d.source, d.number, d.result, tensor);
    }
    return nullptr;
  }

  bool is_parameter(const at::Tensor& tensor) const {
    const auto* storage = tensor.storage().unsafeGetStorageImpl();
    return (tensor.is_leaf() && tensor.requires_grad()) ||
           std::find(parameters_.begin(), parameters_.end(), storage) != parameters_.end();
  }

  ActivationOffload* offload_;
  std::vector<const c10::StorageImpl*> parameters_;
  std::vector<Declared> declared_;
};

LayerScope::LayerScope() : before_(std::exchange(current_scope, this)) {}

LayerScope::LayerScope(const Layer& layer, const LayerMemory& memory, ActivationOffload* offload)
    : before_(std::exchange(current_scope, this)),
      modules_(&memory.modules),
      trained_(std::any_of(layer.parameters().begin(), layer.parameters().end(),
                           [](const auto& p) { return p->value.requires_grad(); })) {
  if (!saved_tensors_are_seen()) return;
  if (memory.offload && offload != nullptr) offload->begin_layer();
  policy_ = std::make_unique<Policy>(layer, memory.offload ? offload : nullptr);
  saved_ = std::make_unique<SavedTensorScope>(policy_.get());
}

LayerScope::~LayerScope() { current_scope = before_; }

namespace {
bool contains(const std::vector<std::string>* modules, std::string_view module) {
  return modules != nullptr &&
         std::find(modules->begin(), modules->end(), module) != modules->end();
}
}  // namespace

bool Pieces::runs_again(std::string_view module, const at::Tensor& x) {
  const auto* scope = current_scope;
  return scope != nullptr && contains(scope->modules_, module) && at::GradMode::is_enabled() &&
         (scope->trained_ || x.requires_grad());
}

bool Pieces::makes_again(std::string_view module, const at::Tensor& result) {
  const auto* scope = current_scope;
  return scope != nullptr && scope->policy_ != nullptr && contains(scope->modules_, module) &&
         at::GradMode::is_enabled() && result.requires_grad();
}

Flow Pieces::without_gradients(const Flow& flow) {
  Flow side;
  for (const auto& [name, value] : flow.entries()) {
    if (value.defined() && !value.requires_grad()) side.set(name, value);
  }
  return side;
}

void Pieces::declare(const std::vector<at::Tensor>& results, const std::vector<at::Tensor>& inputs,
                     TensorFunction body) {
  current_scope->policy_->declare(results, inputs, std::move(body));
}

}  // namespace triptych
