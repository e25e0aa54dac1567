#pragma once

// What both halves of a flow are made with: lists as tensors, rotary angles, keys of dropout.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "models/qwen2_5_vl/model.h"

namespace triptych::qwen2_5_vl {

/// int64, on the CPU.
at::Tensor host_tensor(const std::vector<int64_t>& values);

/// inv_freq[i] = theta^(-2i / dim) in fp32, in the reference's order of operations.
at::Tensor inverse_frequencies(double theta, int64_t dim);

/// [positions, frequencies] fp32.
at::Tensor angles(const std::vector<int64_t>& positions, const at::Tensor& inv_freq);

/// The key of a token's (or patch's) dropout masks.
int64_t token_key(const FlowSettings::DropoutKey& key, uint64_t place, uint64_t sample);

/// How many tokens (or cells) a sequence needs behind `count`, so that tensor ranks share it
/// evenly.
int64_t padding(int64_t count, const ModelGroups& groups);

/// Adds what the vision tower reads, and the way of its features to the tokens.
/// @param needed  where context ranks split the tokens: cells that stand among each one's, numbered
///   over the samples' media; else empty.
/// @return  row of each own placeholder's feature among those that arrive, in order; empty: that of
///   its cell.
std::vector<int64_t> add_vision(Flow& flow, const Options& options,
                                std::span<const SampleView> samples,
                                const std::vector<std::vector<int64_t>>& needed,
                                const FlowSettings& settings);

}  // namespace triptych::qwen2_5_vl
