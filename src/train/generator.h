#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/error.h"
#include "data/sample.h"
#include "train/family.h"

namespace triptych {

struct GenerateOptions {
  int64_t max_new_tokens = 256;
  double temperature = 0;         ///< 0: greedy
  double top_p = 1;               ///< the smallest set of tokens whose probabilities reach it
  double repetition_penalty = 1;  ///< over prompt and answer; 1: none
  uint64_t seed = 0;
  std::vector<int32_t> stop_tokens;
};

/// Called with each new token as it comes; returns false to stop.
using TokenCallback = std::function<bool(int32_t token)>;

/// The model answers with NaN or infinity.
class NonfiniteOutput : public Error {
 public:
  using Error::Error;
};

/// Continues a prompt with key/value caches; no gradient is kept.
/// @param prompt  tokens with placeholders expanded, and media; labels are not looked at.
/// @return        the new tokens, without the stop token.
/// @throws NonfiniteOutput
/// Source of the order (penalty, temperature, top-p, softmax in fp32): transformers' generation.
std::vector<int32_t> generate(const Family& family, const Model& model, const Sample& prompt,
                              const GenerateOptions& options, const FlowRequest& request,
                              const TokenCallback& on_token = {});

/// The next token from a row of logits [V]; a function of logits, options and draw alone.
/// @param history  tokens that the repetition penalty counts.
/// @param draw     in [0, 1).
/// @throws NonfiniteOutput when the largest logit is none or infinite
int32_t choose_token(const at::Tensor& logits_V, const GenerateOptions& options,
                     std::span<const int32_t> history, double draw);

}  // namespace triptych
