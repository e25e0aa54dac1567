#include "nn/linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linear.h>

#include <utility>

#include "nn/dropout.h"
#include "parallel/collectives.h"

namespace triptych {

LinearPlacement placement_of(const LinearSplit& split, const ModelGroups& groups) {
  LinearPlacement placement;
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
  const bool partial = split_.is_row() && groups_.tensor_size() > 1;
  auto y_TO = at::linear(x_TI, weight->value, bias && !partial ? bias->value : at::Tensor());
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
  const auto delta_TO = at::linear(at::linear(low_TI, lora->a_RI->value), lora->b_OR->value);
  return (y_TO + delta_TO * lora->scale).to(y_TO.scalar_type());
}

}  // namespace triptych
