#pragma once

#include <cstdint>

namespace triptych {

class Group;
class ProcessContext;
struct ParallelOptions;
enum class ContextAlgorithm;

/// The groups over which the layers of a model exchange activations; given to the blocks that use
/// them by the ParameterBuilder, never global. Null, or a group of one: the block is the plain
/// single-process one, without an operation or a copy more.
///
/// The groups are borrowed: the ProcessContext that made them must outlive the model.
struct ModelGroups {
  Group* tensor = nullptr;   ///< ranks that split one weight matrix; all see the same samples
  bool sequence = false;     ///< between matrices each tensor rank holds its part of the tokens
  Group* context = nullptr;  ///< ranks that split one sequence; ulysses (inner) x ring (outer)
  Group* ulysses = nullptr;
  Group* ring = nullptr;
  ContextAlgorithm context_algorithm{};  ///< only read where `context` is larger than one

  int64_t tensor_size() const;
  int64_t tensor_rank() const;
  int64_t context_size() const;
  int64_t context_rank() const;
  /// Whether hidden states between matrices are parts of the tokens (TP-SP).
  bool split_tokens() const { return sequence && tensor_size() > 1; }
};

/// This rank's, once the mesh is set.
ModelGroups model_groups(ProcessContext& process, const ParallelOptions& options);

}  // namespace triptych
