#pragma once

#include <ATen/core/Tensor.h>

namespace triptych {

/// Rows of an embedding table: y[...] = weight[ids[...]].
///
/// @param weight_VD  [V, D].
/// @param ids        int64, any shape, in [0, V).
/// @return           [..., D].
/// @throws Error     on an id outside the table (not on the meta device).
///
/// Backward gives the table a sparse gradient (ATen COO, coalesced, rows ascending, [n, D]): the
/// dense [V, D] gradient never exists. Rows of equal id are summed in fp32 in order of appearance
/// and rounded once, so the result is the same on any number of threads.
at::Tensor embedding_rows(const at::Tensor& weight_VD, const at::Tensor& ids);

}  // namespace triptych
