#pragma once

#include <cstdint>
#include <string>

#include "base/error.h"
#include "parallel/options.h"

namespace triptych {

/// What the layers of one part of a model have to share out over ranks.
struct LayerSizes {
  std::string name;  ///< "vision", "text": for messages
  int64_t heads = 1, key_value_heads = 1;
  int64_t mlp = 1;  ///< inner size
};

/// Rules M3, M4 and M5 of docs/spec/parallelism.md 1.5: heads and the MLP's inner size are shared
/// out evenly over `tensor` ranks; key/value heads evenly, or each is held by several ranks.
void validate_tensor(const LayerSizes& sizes, int64_t tensor, Problems& problems);

/// Ranks of the context axis that exchange heads; the others form the ring.
/// @param query_heads  that one tensor rank holds.
int64_t ulysses_size(const ParallelOptions& options, int64_t query_heads);

/// Rule M8: Ulysses takes whole heads (M7, that its size divides the context axis, is the mesh's).
void validate_context(const LayerSizes& sizes, const ParallelOptions& options, Problems& problems);

/// What heads cost that cannot be shared out evenly; empty where they can.
std::string context_advice(const LayerSizes& sizes, const ParallelOptions& options);

}  // namespace triptych
