#include "nn/dropout.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include "base/error.h"
#include "base/random.h"

namespace triptych {

int64_t dropout_key(uint64_t seed, uint64_t step, uint64_t sample, uint64_t place) {
  const RandomKey random{seed ^ (step * 0x9E3779B97F4A7C15ULL), RandomStream::kDropout};
  const auto bits = philox(random, place, sample);
  return static_cast<int64_t>(uint64_t{bits[0]} | uint64_t{bits[1]} << 32);
}

at::Tensor token_dropout(const at::Tensor& x_TD, const at::Tensor& keys_T, uint64_t site,
                         double probability, int64_t first_column) {
  require(probability >= 0 && probability < 1, "dropout: probability ", probability,
          " must be in [0, 1)");
  require(x_TD.dim() == 2 && keys_T.dim() == 1 && keys_T.size(0) == x_TD.size(0),
          "dropout: ", keys_T.size(0), " keys for values of ", x_TD.sizes());
  if (probability == 0) return x_TD;

  const int64_t T = x_TD.size(0), D = x_TD.size(1);
  if (x_TD.is_meta()) return x_TD * at::empty({T, D}, x_TD.options());
  const auto keys = keys_T.cpu().contiguous();
  auto mask_TD = at::empty({T, D}, at::kFloat);
  const auto* key = keys.const_data_ptr<int64_t>();
  auto* mask = mask_TD.mutable_data_ptr<float>();
  const auto kept = static_cast<float>(1 / (1 - probability));
  at::parallel_for(0, T, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const RandomKey random{static_cast<uint64_t>(key[t]), RandomStream::kLoraDropout};
      uint32x4 bits{};
      for (int64_t d = 0; d < D; ++d) {
        const auto column = static_cast<uint64_t>(first_column + d);
        if (d == 0 || column % 4 == 0) bits = philox(random, column / 4, site);
        mask[t * D + d] = uniform_from_bits(bits[column % 4]) < probability ? 0.0F : kept;
      }
    }
  });
  return x_TD * mask_TD.to(x_TD.options());
}

}  // namespace triptych
