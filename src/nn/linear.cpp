#include "nn/linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linear.h>

#include <utility>

#include "nn/dropout.h"

namespace triptych {

Linear::Linear(ParameterBuilder& builder, std::string path, const std::string& part, int64_t in,
               int64_t out, bool bias, LinearSplit split, double init_std)
    : path_(std::move(path)), part_(part), in_(in), out_(out) {
  Placement of_weight, of_bias;
  if (split == LinearSplit::kColumn) {
    of_weight.split = of_bias.split = Placement::Split{.dim = 0, .axis = Axis::kTensor};
  } else if (split == LinearSplit::kRow) {
    of_weight.split = Placement::Split{.dim = 1, .axis = Axis::kTensor};
  }
  weight = builder.make(path_ + ".weight", part, {out, in},
                        {Parameter::Init::Kind::kNormal, init_std}, of_weight);
  if (bias)
    this->bias =
        builder.make(path_ + ".bias", part, {out}, {Parameter::Init::Kind::kZero, 0}, of_bias);
  builder.remember(this);
}

at::Tensor Linear::forward(const at::Tensor& x_TI, const at::Tensor& dropout_keys_T) const {
  const auto y_TO = at::linear(x_TI, weight->value, bias ? bias->value : at::Tensor());
  if (!lora) return y_TO;

  // The adapter computes in its own precision (fp32 beside a bf16 base), and so does the sum.
  auto low_TI = x_TI.to(lora->a_RI->value.scalar_type());
  if (lora->dropout > 0 && dropout_keys_T.defined()) {
    low_TI = token_dropout(low_TI, dropout_keys_T, lora->site, lora->dropout);
  }
  const auto delta_TO = at::linear(at::linear(low_TI, lora->a_RI->value), lora->b_OR->value);
  return (y_TO + delta_TO * lora->scale).to(y_TO.scalar_type());
}

}  // namespace triptych
