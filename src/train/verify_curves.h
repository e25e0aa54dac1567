#pragma once

#include <c10/core/Device.h>

#include <filesystem>

#include "base/json.h"
#include "train/verify.h"
#include "train/verify_batches.h"

namespace triptych {

/// Of a loss computed in bf16, and the loss of the folders it was found with.
inline constexpr double kLossBf16 = 0.02, kUsualLoss = 6.7;

/// Steps of AdamW over b0 and b1: loss and gradient norm of every step.
void verify_curves(const std::filesystem::path& folder, const Json& manifest, at::Device device,
                   const ReferenceBatches& reference, VerifyTable& table);

}  // namespace triptych
