#pragma once

// A small video diffusion transformer that exists for the tests: it shows that nothing in parallel/
// and nn/ is made for one family. Text and video attend jointly without a causal mask, layers are
// modulated by the diffusion time, and every stage of a pipeline needs that conditioning; some
// layers attend within frames and along time by turns. After CogVideoX (arXiv:2408.06072) and
// Latte (arXiv:2401.03048).
//
// B samples   V text tokens   P video tokens (patches)   T joint tokens, all samples joined
// D hidden size   E conditioning   F values of a patch   K head dim   H heads on this rank
//
// A sample's joint sequence is [text; video], video tokens by frame, then by place in the frame.
// Where context ranks split it, T and P count what this rank holds, by the split of the joint
// sequence; text tokens alone (V) are on all of them.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>

#include "nn/model.h"
#include "parallel/model_groups.h"

namespace triptych::video_transformer {

struct Options {
  int64_t vocabulary = 50, text_hidden = 24, text_heads = 4, text_mlp = 36, text_layers = 2;
  int64_t hidden = 32, heads = 4, mlp = 80, layers = 4;  ///< every second layer attends by axes
  int64_t conditioning = 20;                             ///< E
  int64_t patch_values = 8;                              ///< F
  double init_std = 0.15;

  int64_t head_dim() const { return hidden / heads; }
};

namespace field {

// "host": stays on the CPU
inline constexpr char kTime[] = "time";                  // [B] fp32, 0 to 1
inline constexpr char kConditioning[] = "conditioning";  // [B, E]: what every stage needs

inline constexpr char kTextIds[] = "text.ids";                // [V] int64
inline constexpr char kTextBounds[] = "text.bounds";          // host [B + 1]
inline constexpr char kTextHidden[] = "text.hidden";          // [V, text hidden]
inline constexpr char kTextDropoutKeys[] = "text.keys";       // [V] int64
inline constexpr char kLatents[] = "video.latents";           // [P, F], noisy
inline constexpr char kOrder[] = "order";                     // [T]: row in [text; own video]
inline constexpr char kHidden[] = "hidden";                   // [T, D]
inline constexpr char kBounds[] = "bounds";                   // host [B + 1], of the whole sequence
inline constexpr char kDropoutKeys[] = "keys";                // [T] int64
inline constexpr char kModulationRows[] = "modulation.rows";  // [T]: sample, + B for video tokens
inline constexpr char kCos[] = "cos";                         // [T, K]
inline constexpr char kSin[] = "sin";                         // likewise

inline constexpr char kVideoRows[] = "video.rows";  // [P]: joint token of each video token
inline constexpr char kGrids[] = "video.grids";     // host [B, 2]: frames, tokens of a frame
// from the joint sequence to frames, and from places back; see grid.h
inline constexpr char kToGridRows[] = "grid.to.rows";      // int64: rows to send, by rank
inline constexpr char kToGridCounts[] = "grid.to.counts";  // host [2, ranks]: sent, received
inline constexpr char kToGridOrder[] = "grid.to.order";    // row of each in what arrives
inline constexpr char kFromGridRows[] = "grid.from.rows";
inline constexpr char kFromGridCounts[] = "grid.from.counts";
inline constexpr char kFromGridOrder[] = "grid.from.order";

inline constexpr char kTarget[] = "target";             // [P, F] fp32: the velocity
inline constexpr char kWeights[] = "weights";           // [P] fp32
inline constexpr char kVideoSample[] = "video.sample";  // [P]: sample of each video token
inline constexpr char kLoss[] = "loss";                 // scalar fp64
inline constexpr char kTokenLosses[] = "token_losses";  // [P] fp32, of this rank's values

}  // namespace field

/// Layers: time embedding, text encoder (part "text"), patch embedding, transformer, head (part
/// "transformer").
Model build(const Options& options, at::ScalarType dtype, const ModelGroups& groups = {});

/// One sample; borrowed.
struct SampleView {
  uint64_t index = 0;  ///< keys noise and time
  std::span<const int32_t> text;
  int64_t frames = 1, frame_tokens = 1;
  std::span<const float> latents;  ///< [frames * frame_tokens, F]
  double loss_weight = 1;          ///< of each video token
};

struct FlowSettings {
  at::ScalarType dtype = at::kFloat;
  bool dropout = false;  ///< of adapters, keyed by seed and step
  uint64_t seed = 0, step = 0;
  ModelGroups groups;  ///< as the model was built with
};

Flow make_flow(const Options& options, std::span<const SampleView> samples,
               const FlowSettings& settings);

}  // namespace triptych::video_transformer
