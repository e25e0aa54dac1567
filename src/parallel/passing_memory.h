#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace triptych {

/// A flat tensor that is soon given back: gradients until they are scattered, parameters while a
/// layer runs. Contents are undefined. On the CPU a large one is mapped and unmapped: the allocator
/// would keep its pages and cut them up for small tensors, so that the next one finds no room and
/// the process grows by what sharding saves. Costs a page fault for 4 KiB, about a thousandth of
/// the products of a layer with such parameters.
at::Tensor passing_memory(int64_t elements, const at::TensorOptions& options);

}  // namespace triptych
