#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace triptych {

/// What a block of tensor memory is for (docs/memory.md).
enum class MemoryKind : uint8_t {
  kParameter,       ///< weights, trained or frozen
  kGradient,        ///< of parameters, and the sums of them
  kOptimizerState,  ///< moments, and what of a master is not the weight
  kActivation,      ///< made in a layer's forward and still there after it
  kTemporary,       ///< gone before its layer ended, or made in backward or in the update
  kInput,           ///< what the loader's samples became
  kCommunication,   ///< buffers of collectives
  kUnknown,         ///< made outside of anything named here
};
constexpr size_t kMemoryKinds = 8;
constexpr std::array<std::string_view, kMemoryKinds> kMemoryKindNames = {
    "parameter", "gradient", "optimizer_state", "activation",
    "temporary", "input",    "communication",   "unknown"};
constexpr std::string_view name_of(MemoryKind kind) {
  return kMemoryKindNames[static_cast<size_t>(kind)];
}

/// Which part of a run allocated it.
enum class MemoryPhase : uint8_t { kOther, kLoad, kInput, kForward, kBackward, kUpdate, kSave };
constexpr std::array<std::string_view, 7> kMemoryPhaseNames = {
    "other", "load", "input", "forward", "backward", "update", "save"};
constexpr std::string_view name_of(MemoryPhase phase) {
  return kMemoryPhaseNames[static_cast<size_t>(phase)];
}

/// Where it lies. The books of a device are kept once follow_device_memory was called.
enum class MemorySpace : uint8_t { kHost, kDevice };

/// What is known of a block when it is made; kept with it until it is freed.
struct MemoryTag {
  uint16_t layer = 0;  ///< number from memory_layer(); 0: of no layer
  MemoryKind kind = MemoryKind::kUnknown;
  MemoryPhase phase = MemoryPhase::kOther;
  friend bool operator==(const MemoryTag&, const MemoryTag&) = default;
};

}  // namespace triptych
