#pragma once

#include <c10/core/Device.h>

#include <filesystem>

#include "base/json.h"
#include "train/verify.h"
#include "train/verify_batches.h"

namespace triptych {

inline constexpr double kLossBf16 = 0.02;  ///< of a loss computed in bf16

/// Steps of AdamW over b0 and b1: loss and gradient norm of every step.
void verify_curves(const std::filesystem::path& folder, const Json& manifest, at::Device device,
                   const ReferenceBatches& reference, VerifyTable& table);

}  // namespace triptych
