#include "parallel/recompute.h"

#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>

#include "kernels/kept_results.h"
#include "kernels/memory_scope.h"
#include "parallel/run_layer.h"
#include "parallel/saved_tensors.h"
#include "parallel/segments.h"

namespace triptych {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

bool is_differentiable(const at::Tensor& tensor) {
  return tensor.defined() && (tensor.is_floating_point() || tensor.is_complex());
}

/// What one recomputed run remembers until its backward; never copied.
struct Run : torch::CustomClassHolder {
  TensorFunction body;
  bool keep_attention = false;
};

struct Recompute : torch::autograd::Function<Recompute> {
  // `anchor` requires grad, so that backward reaches a piece whose inputs carry no gradient
  // (the first trained layer above a frozen embedding).
  static variable_list forward(AutogradContext* ctx, const at::Tensor& /*anchor*/,
                               at::TensorList inputs, const c10::intrusive_ptr<Run>& run) {
    KeptResults kept;
    variable_list outputs, saved = inputs.vec();
    {
      const at::NoGradGuard no_grad;
      const KeptResults::Scope keep(run->keep_attention ? &kept : nullptr, /*repeat=*/false);
      outputs = run->body(saved);
    }
    // autograd holds what was kept as well, so that offload sees it
    for (auto& result : kept.release()) saved.push_back(std::move(result));
    ctx->saved_data["inputs"] = static_cast<int64_t>(inputs.size());
    for (const auto& output : outputs) {
      if (!is_differentiable(output)) ctx->mark_non_differentiable({output});
    }
    ctx->save_for_backward(saved);
    ctx->saved_data["run"] = c10::IValue::make_capsule(run);
    return outputs;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto run = c10::static_intrusive_pointer_cast<Run>(ctx->saved_data["run"].toCapsule());
    auto saved = ctx->get_saved_variables();
    const auto count = static_cast<size_t>(ctx->saved_data["inputs"].toInt());
    variable_list inputs;
    for (const auto& input : std::span(saved).first(count))
      inputs.push_back(input.detach().set_requires_grad(input.requires_grad()));
    KeptResults kept{std::span<const at::Tensor>(saved).subspan(count)};
    saved.clear();
    variable_list outputs, output_gradients;
    {
      const at::AutoGradMode with_grad(true);
      const SavedTensorScope all_kept(nullptr);
      const LayerScope nothing_chosen;
      const KeptResults::Scope keep(run->keep_attention ? &kept : nullptr, /*repeat=*/true);
      const auto again = run->body(inputs);
      for (size_t i = 0; i < gradients.size(); ++i) {
        if (!gradients[i].defined() || !again[i].requires_grad()) continue;
        outputs.push_back(again[i]);
        output_gradients.push_back(gradients[i]);
      }
    }
    if (!outputs.empty()) torch::autograd::backward(outputs, output_gradients);
    variable_list result{at::Tensor()};  // the anchor
    for (auto& input : inputs) result.push_back(input.grad());
    result.emplace_back();  // the run
    return result;
  }
};

/// How a flow looks before and after some layers; filled by the first run.
struct FlowChange {
  Flow plain;                    ///< fields that carry no gradient in
  std::vector<std::string> in;   ///< those that do
  std::vector<std::string> out;  ///< fields set anew
  std::vector<std::string> erased;
  bool known = false;

  variable_list run(std::span<const std::unique_ptr<Layer>> layers, const variable_list& inputs) {
    Flow flow = plain;
    for (size_t i = 0; i < inputs.size(); ++i) flow.set(in[i], inputs[i]);
    const Flow before = flow;
    for (const auto& layer : layers) {
      const MemoryScope memory(MemoryPhase::kForward, layer->name());
      run_layer(*layer, flow);
    }
    if (!known) {
      for (const auto& [name, value] : flow.entries()) {
        if (!value.is_same(before.get(name))) out.push_back(name);
      }
      for (const auto& [name, value] : before.entries()) {
        if (!flow.has(name)) erased.push_back(name);
      }
      known = true;
    }
    variable_list outputs;
    for (const auto& name : out) outputs.push_back(flow.at(name));
    return outputs;
  }
};

bool is_trained(const Layer& layer) {
  return std::any_of(layer.parameters().begin(), layer.parameters().end(),
                     [](const auto& p) { return p->value.requires_grad(); });
}

}  // namespace

std::vector<at::Tensor> recomputed(const std::vector<at::Tensor>& inputs, TensorFunction body,
                                   bool keep_attention) {
  if (!at::GradMode::is_enabled()) return body(inputs);
  const auto run = c10::make_intrusive<Run>();
  run->body = std::move(body);
  run->keep_attention = keep_attention;
  const auto anchor = at::zeros({}).set_requires_grad(true);
  return Recompute::apply(anchor, at::TensorList(inputs), run);
}

void forward_recomputed(std::span<const std::unique_ptr<Layer>> layers, Flow& flow,
                        bool keep_attention) {
  const auto run_plainly = [&] {
    for (const auto& layer : layers) run_layer(*layer, flow);
  };
  if (!at::GradMode::is_enabled()) return run_plainly();
  const auto change = std::make_shared<FlowChange>();
  variable_list inputs;
  for (const auto& [name, value] : flow.entries()) {
    if (is_differentiable(value) && value.requires_grad()) {
      change->in.push_back(name);
      inputs.push_back(value);
    } else {
      change->plain.set(name, value);
    }
  }
  const bool trained =
      std::any_of(layers.begin(), layers.end(), [](const auto& l) { return is_trained(*l); });
  if (!trained && inputs.empty()) return run_plainly();

  const auto outputs = recomputed(
      inputs, [change, layers](const variable_list& in) { return change->run(layers, in); },
      keep_attention);
  for (const auto& name : change->erased) flow.erase(name);
  for (size_t i = 0; i < outputs.size(); ++i) flow.set(change->out[i], outputs[i]);
}

}  // namespace triptych
