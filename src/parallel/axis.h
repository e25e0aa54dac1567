#pragma once

#include <cstdint>

namespace triptych {

/// Axes of the device mesh (docs/spec/parallelism.md, section 1).
enum class Axis : uint8_t { kTensor, kContext, kData, kPipeline };

}  // namespace triptych
