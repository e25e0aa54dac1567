#pragma once

#include <cstdint>
#include <string_view>

#include "kernels/memory_kind.h"

namespace triptych {

/// While it lives, tensor memory that this thread takes belongs to a phase and, inside a layer, to
/// that layer. Scopes nest; the innermost counts. Ends on the thread that made it.
///
///   const MemoryScope scope(MemoryPhase::kForward, layer.name());
///   layer.forward(flow);
///
/// What a forward scope leaves behind becomes `kActivation` when it ends; what is freed inside
/// stays `kTemporary`. Backward needs no scope per layer: autograd's nodes carry the sequence
/// numbers of the forward operators, and those of a forward scope are remembered with its layer.
class MemoryScope {
 public:
  explicit MemoryScope(MemoryPhase phase, std::string_view layer = {});
  MemoryScope(MemoryPhase phase, MemoryKind kind, std::string_view layer = {});
  ~MemoryScope();
  MemoryScope(const MemoryScope&) = delete;
  MemoryScope& operator=(const MemoryScope&) = delete;

  struct Place {
    MemoryTag tag;
    uint64_t scope = 0;          ///< number of the innermost scope; 0: none
    const void* node = nullptr;  ///< autograd's node that ran when the scope was made
  };

 private:
  Place before_;
  uint64_t first_before_;
};

/// Number of a layer's name, made when first asked for; 0 for the empty name and beyond 65535.
uint16_t memory_layer(std::string_view name);
/// The layer that a parameter belongs to: the longest known layer name that begins its name; 0:
/// none.
uint16_t memory_layer_of(std::string_view parameter);
/// Its name; "" for 0.
std::string_view memory_layer_name(uint16_t layer);

/// Where this thread is: the innermost scope or, in backward, the layer of autograd's node.
MemoryScope::Place memory_place();

/// Forgets which sequence numbers belong to which layer: at the begin of a step, when no graph of
/// the last one is alive.
void forget_memory_sequences();

}  // namespace triptych
