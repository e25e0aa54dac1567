#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace triptych {

/// The key of one token's dropout masks: a function of the run, the step and the token's place in
/// its sample, whatever rank or micro-batch it is in.
int64_t dropout_key(uint64_t seed, uint64_t step, uint64_t sample, uint64_t place);

/// Dropout whose mask is a function of (token key, site, column): the same whatever rank,
/// micro-batch or recomputation a token is in. Kept values are scaled by 1 / (1 - probability).
///
/// @param x_TD    floating point, [T, D].
/// @param keys_T  int64; the caller derives one from (seed, step, sample, position of the token).
/// @param site    which dropout of the model this is.
/// @param first_column  number of x's first column where x is a part of the columns.
/// @throws Error  unless 0 <= probability < 1.
at::Tensor token_dropout(const at::Tensor& x_TD, const at::Tensor& keys_T, uint64_t site,
                         double probability, int64_t first_column = 0);

}  // namespace triptych
