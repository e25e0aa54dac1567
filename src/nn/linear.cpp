#include "nn/linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <optional>
#include <utility>

#include "base/trace_scope.h"
#include "nn/dropout.h"
#include "parallel/collectives.h"
#include "parallel/weight_gradients.h"

namespace triptych {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Sink : torch::CustomClassHolder {
  std::shared_ptr<WeightGradients> gradients;
  at::Tensor weight;  ///< itself: what was saved may come back as another tensor of the same values
};

/// at::linear with the same products in backward, of which the weight's may wait.
struct SplitLinear : torch::autograd::Function<SplitLinear> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias,
                            const c10::intrusive_ptr<Sink>& sink) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["sink"] = c10::IValue::make_capsule(sink);
    ctx->saved_data["bias"] = bias.has_value();
    return at::linear(x, weight.flatten(1), bias);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const at::NoGradGuard no_grad;
    const auto saved = ctx->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1];
    const auto dy_TO = gradients[0].reshape({-1, gradients[0].size(-1)});
    variable_list result(4);
    if (ctx->needs_input_grad(0)) result[0] = at::mm(dy_TO, weight.flatten(1)).view(x.sizes());
    if (ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(2)) result[2] = dy_TO.sum(0);
    if (!ctx->needs_input_grad(1)) return result;
    const auto product = [dy_TO, x_TI = x.detach().reshape({-1, x.size(-1)}),
                          sizes = weight.sizes().vec()] {
      return at::mm(dy_TO.t(), x_TI).view(sizes);
    };
    const auto& sink = static_cast<const Sink&>(*ctx->saved_data["sink"].toCapsule());
    if (!sink.gradients->put_off(
            [product, leaf = sink.weight] { accumulate_gradient(leaf, product()); }))
      result[1] = product();
    return result;
  }
};

}  // namespace

at::Tensor linear(const at::Tensor& x_TI, const Parameter& weight, const at::Tensor& bias_O) {
  const auto& value = weight.value;
  if (!weight.weight_gradients || !value.requires_grad() || !at::GradMode::is_enabled())
    return at::linear(x_TI, value.dim() == 2 ? value : value.flatten(1), bias_O);
  const auto sink = c10::make_intrusive<Sink>();
  sink->gradients = weight.weight_gradients;
  sink->weight = value;
  // an input that is not there must be an empty optional, not an undefined tensor
  const auto bias = bias_O.defined() ? std::optional(bias_O) : std::nullopt;
  return SplitLinear::apply(x_TI, value, bias, sink);
}

LinearPlacement placement_of(const LinearSplit& split, const ModelGroups& groups) {
  LinearPlacement placement;
  if (split.kind == LinearSplit::Kind::kBetween) {
    for (auto* part : {&placement.weight, &placement.bias, &placement.lora_a, &placement.lora_b})
      part->sum_over_tensor = groups.split_tokens();
  }
  const Placement::Split cut{.dim = split.kind == LinearSplit::Kind::kColumn ? 0 : 1,
                             .axis = Axis::kTensor,
                             .sections = split.sections,
                             .unit = split.unit};
  if (split.kind == LinearSplit::Kind::kColumn) {
    placement.weight.split = placement.bias.split = placement.lora_b.split = cut;
    // A's output goes to every rank's part of B: each finds a part of A's gradient.
    placement.lora_a.sum_over_tensor = true;
  } else if (split.is_row()) {
    placement.weight.split = placement.lora_a.split = cut;
    placement.lora_b.sum_over_tensor = true;  // each rank multiplies its own partial A x
    placement.bias.sum_over_tensor = split.kind == LinearSplit::Kind::kRow && groups.split_tokens();
  }
  return placement;
}

Linear::Linear(ParameterBuilder& builder, std::string path, const std::string& part, int64_t in,
               int64_t out, bool bias, const LinearSplit& split, double init_std)
    : path_(std::move(path)),
      part_(part),
      in_(in),
      out_(out),
      split_(split),
      groups_(builder.groups()) {
  const auto placement = placement_of(split_, groups_);
  weight = builder.make(path_ + ".weight", part, {out, in},
                        {Parameter::Init::Kind::kNormal, init_std}, placement.weight);
  if (bias) {
    this->bias = builder.make(path_ + ".bias", part, {out}, {Parameter::Init::Kind::kZero, 0},
                              placement.bias);
  }
  builder.remember(this);
}

at::Tensor Linear::forward(const at::Tensor& x_TI, const at::Tensor& dropout_keys_T) const {
  const TraceScope scope(TraceScope::Inner(), kModulePrefix, path_);
  const bool partial = split_.is_row() && groups_.tensor_size() > 1;
  auto y_TO = linear(x_TI, *weight, bias && !partial ? bias->value : at::Tensor());
  if (lora) y_TO = with_adapter(y_TO, x_TI, dropout_keys_T);
  if (!partial) return y_TO;

  y_TO = split_.kind == LinearSplit::Kind::kRow && groups_.sequence
             ? scatter_sum_tokens(y_TO, groups_.tensor)
             : reduce_from_ranks(y_TO, groups_.tensor);
  return bias ? y_TO + bias->value : y_TO;
}

at::Tensor Linear::with_adapter(const at::Tensor& y_TO, const at::Tensor& x_TI,
                                const at::Tensor& dropout_keys_T) const {
  // The adapter computes in its own precision (fp32 beside a bf16 base), and so does the sum.
  auto low_TI = x_TI.to(lora->a_RI->value.scalar_type());
  if (lora->dropout > 0 && dropout_keys_T.defined()) {
    const auto& held = lora->a_RI->held;
    low_TI = token_dropout(low_TI, dropout_keys_T, lora->site, lora->dropout,
                           held.empty() ? 0 : held.front().start);
  }
  const auto delta_TO = linear(linear(low_TI, *lora->a_RI), *lora->b_OR);
  return (y_TO + delta_TO * lora->scale).to(y_TO.scalar_type());
}

}  // namespace triptych
