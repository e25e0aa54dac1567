#include "parallel/saved_tensors.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sum.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/csrc/autograd/saved_variable_hooks.h>

#include <utility>

#include "base/log.h"

namespace triptych {

namespace {

using torch::autograd::Engine;
using torch::autograd::SavedVariableHooks;

thread_local SavedTensorPolicy* current_policy = nullptr;

class Hooks : public SavedVariableHooks {
 public:
  explicit Hooks(SavedTensorPolicy& policy) : policy_(&policy) {}
  void call_pack_hook(const at::Tensor& tensor) override { packed_ = policy_->pack(tensor); }
  at::Tensor call_unpack_hook() override { return packed_->unpack(); }

 private:
  SavedTensorPolicy* policy_;  // used at once: packing follows construction
  std::unique_ptr<PackedTensor> packed_;
};

class SeeingEngine : public Engine {
 public:
  std::unique_ptr<SavedVariableHooks> get_default_saved_variable_hooks() override {
    return current_policy == nullptr ? nullptr : std::make_unique<Hooks>(*current_policy);
  }
};

/// Never destroyed: threads of the engine outlive statics.
Engine& seeing_engine() {
  static auto* const engine = new SeeingEngine;
  return *engine;
}

/// Keeps and counts.
class Counting : public SavedTensorPolicy {
 public:
  class Kept : public PackedTensor {
   public:
    Kept(at::Tensor tensor, int& unpacked) : tensor_(std::move(tensor)), unpacked_(unpacked) {}
    at::Tensor unpack() override {
      ++unpacked_;
      return tensor_;
    }

   private:
    at::Tensor tensor_;
    int& unpacked_;
  };
  std::unique_ptr<PackedTensor> pack(const at::Tensor& tensor) override {
    ++packed;
    return std::make_unique<Kept>(tensor.is_leaf() ? tensor : tensor.detach(), unpacked);
  }
  int packed = 0, unpacked = 0;
};

/// exp saves its result, the product both factors (one of them a leaf): 3 tensors of each kind.
at::Tensor gradient_of_a_small_graph(SavedTensorPolicy* policy) {
  const at::AutoGradMode with_grad(true);
  const auto x = at::arange(1, 5, at::kFloat).div_(3).set_requires_grad(true);
  at::Tensor y;
  {
    const SavedTensorScope scope(policy);
    y = at::exp(x) * x;
  }
  y.sum().backward();
  return x.grad();
}

bool install() {
  const auto want = gradient_of_a_small_graph(nullptr);
  torch::autograd::set_default_engine_stub(seeing_engine);
  Counting counting;
  bool good = false;
  try {
    const auto got = gradient_of_a_small_graph(&counting);
    good = counting.packed == 3 && counting.unpacked == 3 && got.equal(want) &&
           gradient_of_a_small_graph(nullptr).equal(want) && counting.packed == 3;
  } catch (const std::exception& error) {
    log_warning("self-test of saved tensors: {}", error.what());
  }
  if (!good) {
    torch::autograd::set_default_engine_stub(Engine::get_base_engine);
    log_warning(
        "this libtorch does not show what autograd saves: recompute.modules mlp_act, norm and "
        "qkv_rope, and recompute.offload, keep everything where it is; results are the same");
  }
  return good;
}

}  // namespace

bool saved_tensors_are_seen() {
  static const bool seen = install();
  return seen;
}

SavedTensorScope::SavedTensorScope(SavedTensorPolicy* policy)
    : before_(std::exchange(current_policy, policy)) {}
SavedTensorScope::~SavedTensorScope() { current_policy = before_; }

}  // namespace triptych
