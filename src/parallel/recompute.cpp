#include "parallel/recompute.h"

#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>

#include "kernels/memory_scope.h"
#include "parallel/run_layer.h"

namespace triptych {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

bool is_differentiable(const at::Tensor& tensor) {
  return tensor.defined() && (tensor.is_floating_point() || tensor.is_complex());
}

/// The fields that a layer may change: their names, and which of them carry gradients in and out.
struct Fields {
  std::vector<std::string> in;   ///< differentiable fields before the layer
  std::vector<std::string> out;  ///< fields after it that it set anew
};

/// What one recomputed run remembers until its backward; never copied.
struct Run : torch::CustomClassHolder {
  const Layer* layer = nullptr;
  Flow plain;  ///< fields without gradients, and names in order
  Fields fields;
};

struct Recompute : torch::autograd::Function<Recompute> {
  // `anchor` requires grad, so that backward reaches a layer whose inputs carry no gradient
  // (the first trained layer above a frozen embedding).
  static variable_list forward(AutogradContext* ctx, const at::Tensor& /*anchor*/,
                               at::TensorList inputs, const c10::intrusive_ptr<Run>& run) {
    Flow flow = run->plain;
    for (size_t i = 0; i < inputs.size(); ++i) flow.set(run->fields.in[i], inputs[i]);
    const Flow before = flow;
    {
      const at::NoGradGuard no_grad;
      run_layer(*run->layer, flow);
    }
    variable_list outputs;
    for (const auto& [name, value] : flow.entries()) {
      if (!value.is_same(before.get(name))) {
        run->fields.out.push_back(name);
        outputs.push_back(value);
      }
    }
    for (const auto& [name, value] : before.entries()) {
      if (!flow.has(name)) run->fields.out.push_back("-" + name);
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!is_differentiable(outputs[i])) ctx->mark_non_differentiable({outputs[i]});
    }
    ctx->save_for_backward(inputs.vec());
    ctx->saved_data["run"] = c10::IValue::make_capsule(run);
    return outputs;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto run = ctx->saved_data["run"].toCapsule();
    const auto& self = static_cast<const Run&>(*run);
    const auto saved = ctx->get_saved_variables();

    Flow flow = self.plain;
    variable_list inputs;
    for (size_t i = 0; i < saved.size(); ++i) {
      inputs.push_back(saved[i].detach().set_requires_grad(saved[i].requires_grad()));
      flow.set(self.fields.in[i], inputs.back());
    }
    variable_list outputs, output_gradients;
    {
      const at::AutoGradMode with_grad(true);
      {
        const MemoryScope memory(MemoryPhase::kForward, self.layer->name());
        run_layer(*self.layer, flow);
      }
      for (size_t i = 0; i < gradients.size(); ++i) {
        const auto& output = flow.at(self.fields.out[i]);
        if (!gradients[i].defined() || !output.requires_grad()) continue;
        outputs.push_back(output);
        output_gradients.push_back(gradients[i]);
      }
      if (!outputs.empty()) torch::autograd::backward(outputs, output_gradients);
    }
    variable_list result{at::Tensor()};  // the anchor
    for (auto& input : inputs) result.push_back(input.grad());
    result.emplace_back();  // the run
    return result;
  }
};

}  // namespace

void forward_recomputed(const Layer& layer, Flow& flow) {
  if (!at::GradMode::is_enabled()) return run_layer(layer, flow);
  const auto run = c10::make_intrusive<Run>();
  run->layer = &layer;
  variable_list inputs;
  for (const auto& [name, value] : flow.entries()) {
    if (is_differentiable(value) && value.requires_grad()) {
      run->fields.in.push_back(name);
      inputs.push_back(value);
    } else {
      run->plain.set(name, value);
    }
  }
  const bool trained = std::any_of(layer.parameters().begin(), layer.parameters().end(),
                                   [](const auto& p) { return p->value.requires_grad(); });
  if (!trained && inputs.empty()) return run_layer(layer, flow);

  const auto anchor = at::zeros({}).set_requires_grad(true);
  const auto outputs = Recompute::apply(anchor, at::TensorList(inputs), run);
  size_t next = 0;
  for (const auto& name : run->fields.out) {
    if (name.front() == '-') {
      flow.erase(name.substr(1));
    } else {
      flow.set(name, outputs[next++]);
    }
  }
}

}  // namespace triptych
