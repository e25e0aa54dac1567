#pragma once

#include <cstdint>
#include <memory>

namespace triptych {

class Group;
class ProcessContext;
class WeightGradients;
struct ParallelOptions;
enum class BalanceVision;
enum class VisionContext;

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
  /// How an encoder's pictures lie over the context ranks; only read where there are several.
  VisionContext vision_context{};
  BalanceVision balance_vision{};
  /// Ranks that share out their pictures: data x context, with balance_vision = "data"; else null.
  Group* pictures = nullptr;

  int64_t tensor_size() const;
  int64_t tensor_rank() const;
  int64_t context_size() const;
  int64_t context_rank() const;
  bool shares_pictures_over_data() const;
  /// For a run that not all data ranks make alike (evaluation): pictures stay where they are read.
  ModelGroups with_own_pictures() const;
  /// Whether hidden states between matrices are parts of the tokens (TP-SP).
  bool split_tokens() const { return sequence && tensor_size() > 1; }
};

/// This rank's, once the mesh is set.
ModelGroups model_groups(ProcessContext& process, const ParallelOptions& options);

/// Weight gradients that wait for the exchanges of all groups in which layers wait for each other;
/// null where there is none, and where the options give them another use or forbid it.
std::shared_ptr<WeightGradients> weight_gradients_beside(const ModelGroups& groups,
                                                         const ParallelOptions& options);

}  // namespace triptych
