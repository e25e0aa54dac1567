#include "nn/modulation.h"

#include <ATen/ops/silu.h>

#include "parallel/collectives.h"

namespace triptych {

Modulation::Modulation(ParameterBuilder& builder, const std::string& path, const std::string& part,
                       int64_t conditioning, int64_t hidden, int64_t count, Place place,
                       double init_std)
    : hidden_(hidden),
      finds_part_(finds_part(place, builder.groups())),
      linear_(builder, path, part, conditioning, count * hidden, true, LinearSplit::column(),
              init_std) {}

at::Tensor Modulation::forward(const at::Tensor& c_BE) const {
  auto* group = linear_.groups().tensor;
  const auto own_BO = linear_.forward(copy_to_ranks(at::silu(c_BE), group));
  // Ranks that modulate other tokens or heads each find a part of the gradient: it is summed.
  const auto all_OB =
      finds_part_ ? gather_tokens(own_BO.t(), group) : gather_tokens_replicated(own_BO.t(), group);
  return all_OB.unflatten(0, {-1, hidden_}).transpose(1, 2);
}

}  // namespace triptych
