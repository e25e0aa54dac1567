#include "train/generator.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/max.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sort.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "train/run_layers.h"

namespace triptych {

int32_t choose_token(const at::Tensor& logits_V, const GenerateOptions& options,
                     std::span<const int32_t> history, double draw) {
  auto scores_V =
      logits_V.to(at::kCPU, at::kFloat, /*non_blocking=*/false, /*copy=*/true).contiguous();
  auto* scores = scores_V.mutable_data_ptr<float>();
  require<NonfiniteOutput>(std::isfinite(scores_V.max().item<float>()),
                           "the model's logits are not finite");  // max passes NaN on
  if (options.repetition_penalty != 1) {
    std::vector<int32_t> seen(history.begin(), history.end());
    std::sort(seen.begin(), seen.end());
    seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
    const auto penalty = static_cast<float>(options.repetition_penalty);
    for (const auto token : seen)
      scores[token] = scores[token] > 0 ? scores[token] / penalty : scores[token] * penalty;
  }
  if (options.temperature <= 0) return static_cast<int32_t>(scores_V.argmax().item<int64_t>());

  scores_V.div_(options.temperature);
  // From the most to the least likely: the head of this list that reaches top_p is what the
  // reference keeps, which cuts the ascending tail of at most 1 - top_p.
  const auto [sorted, order] = at::softmax(scores_V, -1).sort(-1, /*descending=*/true);
  const auto* probability = sorted.const_data_ptr<float>();
  const auto* token = order.const_data_ptr<int64_t>();
  int64_t kept = 0;
  double total = 0;
  while (kept < sorted.numel() && (kept == 0 || total < options.top_p))
    total += probability[kept++];
  double remaining = draw * total;
  for (int64_t i = 0; i < kept; ++i) {
    remaining -= probability[i];
    if (remaining < 0) return static_cast<int32_t>(token[i]);
  }
  return static_cast<int32_t>(token[kept - 1]);
}

std::vector<int32_t> generate(const Family& family, const Model& model, const Sample& prompt,
                              const GenerateOptions& options, const FlowRequest& request,
                              const TokenCallback& on_token) {
  require(!prompt.tokens.empty(), "generate: the prompt has no token");
  const at::NoGradGuard no_grad;
  auto state = family.start_decoding(
      static_cast<int64_t>(prompt.tokens.size()) + options.max_new_tokens, request);
  auto history = prompt.tokens;
  std::vector<int32_t> answer;
  auto flow = family.prefill_flow(prompt, state, request);
  while (static_cast<int64_t>(answer.size()) < options.max_new_tokens) {
    run_layers(model, flow);
    state.length = static_cast<int64_t>(history.size());
    const double draw =
        uniform({options.seed, RandomStream::kSampling}, answer.size(), prompt.index);
    const auto token = choose_token(flow.at(family.logits_field())[0], options, history, draw);
    if (std::find(options.stop_tokens.begin(), options.stop_tokens.end(), token) !=
        options.stop_tokens.end())
      break;
    answer.push_back(token);
    history.push_back(token);
    if (on_token && !on_token(token)) break;
    flow = family.decode_flow(token, state, request);
  }
  return answer;
}

}  // namespace triptych
