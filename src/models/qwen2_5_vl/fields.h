#pragma once

// The flow of Qwen2.5-VL: the tensors that run from layer to layer. Tensors marked "host" stay on
// the CPU whatever the device, because they steer the launch of kernels.
//
// Where context ranks split the sequence, T, P and C count what this rank holds; segment bounds are
// those of the whole text, and label rows those of its own tokens.
//
// P patches   C cells of 2 x 2 patches   T text tokens, all samples joined   N tokens with a label
// F patch dim 1176   E vision hidden size   D text hidden size   K head dim (of the tower in
// question)

namespace triptych::qwen2_5_vl::field {

// vision tower; absent when no sample of the micro-batch has a picture
inline constexpr char kPixels[] = "vision.pixels";               // [P, F], in the hub's patch order
inline constexpr char kVisionHidden[] = "vision.hidden";         // [P, E], in window order
inline constexpr char kVisionCos[] = "vision.cos";               // [P, K] fp32, in window order
inline constexpr char kVisionSin[] = "vision.sin";               // likewise
inline constexpr char kWindowIndex[] = "vision.window_index";    // [C] int64
inline constexpr char kReverseIndex[] = "vision.reverse_index";  // [C] int64
inline constexpr char kWindowBounds[] = "vision.cu_window";  // host [windows + 1] int64, patches
inline constexpr char kFrameBounds[] = "vision.cu_frames";   // host [frames + 1] int64, patches
inline constexpr char kRankPatches[] =
    "vision.rank_patches";  // host [ranks] int64; context ranks that split windows: P of each, and
                            // cu_frames counts the patches of all
inline constexpr char kVisionDropoutKeys[] =
    "vision.dropout_keys";  // [P] int64, window order; only with adapter dropout
// ranks that share pictures (context, or data x context): features go to those whose tokens they
// are
inline constexpr char kRouteRows[] = "vision.route_rows";        // int64: cells to send, by rank
inline constexpr char kRouteSend[] = "vision.route_send";        // host [ranks] int64: how many
inline constexpr char kRouteReceive[] = "vision.route_receive";  // host [ranks] int64
inline constexpr char kFeatures[] = "vision.features";  // [C, D], in the hub's cell order, or as
                                                        // they arrive

// text model
inline constexpr char kPlainIds[] =
    "text.plain_ids";                           // [T - C] int64: tokens that are no placeholder
inline constexpr char kOrder[] = "text.order";  // [T] int64: row of each token in [plain; features]
inline constexpr char kHidden[] = "text.hidden";             // [T, D]
inline constexpr char kCos[] = "text.cos";                   // [T, K], dtype of the activations
inline constexpr char kSin[] = "text.sin";                   // likewise
inline constexpr char kSampleBounds[] = "text.cu_seqlens";   // host [samples + 1] int64
inline constexpr char kDropoutKeys[] = "text.dropout_keys";  // [T] int64; only with adapter dropout

// head
inline constexpr char kLabelRows[] =
    "label.rows";                               // [N] int64: the token whose next one is the label
inline constexpr char kLabels[] = "label.ids";  // [N] int64
inline constexpr char kLabelWeights[] = "label.weights";  // [N] fp32: weight of each token's loss
inline constexpr char kLoss[] = "loss";                   // scalar fp64: sum of weight x loss
inline constexpr char kTokenLosses[] = "token_losses";    // [N] fp32
inline constexpr char kLogitRows[] = "logit.rows";  // [M] int64: tokens whose logits are wanted
inline constexpr char kLogits[] = "logits";         // [M, vocabulary]

// generation: keys and values of every decoder layer, filled in place
inline constexpr char kCacheLength[] =
    "cache.length";  // host scalar int64: tokens the caches hold already
inline constexpr char kCacheKeys[] = "cache.keys";      // [layers, capacity, G, K]
inline constexpr char kCacheValues[] = "cache.values";  // likewise

}  // namespace triptych::qwen2_5_vl::field
