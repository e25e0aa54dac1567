// Text model of Qwen2.5-VL: grouped key/value heads, multimodal rotary positions.
// Source: transformers, modeling_qwen2_5_vl.py; report arXiv:2502.13923.
//
// T tokens of all samples, joined without padding; between matrices those of this rank
// D hidden size   I MLP size on this rank   V vocabulary   N tokens with a label
// H query heads, G key/value heads on this rank   K head dim   S tokens in the cache

#include "models/qwen2_5_vl/text.h"

#include <ATen/TensorOperators.h>

#include "kernels/rms_norm.h"
#include "kernels/rotary.h"
#include "kernels/swiglu.h"
#include "kernels/varlen_attention.h"
#include "models/qwen2_5_vl/fields.h"
#include "nn/linear.h"
#include "nn/rms_norm.h"
#include "nn/tensor_region.h"
#include "nn/vocabulary.h"
#include "parallel/context_attention.h"
#include "parallel/segments.h"

namespace triptych::qwen2_5_vl {

namespace {

class Embedding : public Layer {
 public:
  Embedding(ParameterBuilder& builder, const Options& options)
      : Layer("model.embed_tokens", "text"),
        weight(make_vocabulary(builder, "model.embed_tokens.weight", "text",
                               options.text.vocab_size, options.text.hidden_size,
                               options.text.initializer_range)),
        embedding_(weight, builder.groups()) {
    parameters_ = {weight};
  }

  void forward(Flow& flow) const override {
    flow.set(field::kHidden,
             embedding_.forward(flow.at(field::kPlainIds), flow.get(field::kFeatures),
                                flow.at(field::kOrder)));
    flow.erase(field::kFeatures);
  }

  Cost cost(const FlowSize& size) const override {
    return {.activation_bytes = 2.0 * static_cast<double>(size.tokens * weight->full_shape[1])};
  }

  ParameterPtr weight;

 private:
  TokenEmbedding embedding_;
};

class DecoderLayer : public Layer {
 public:
  DecoderLayer(ParameterBuilder& builder, const TextOptions& options, int64_t number)
      : DecoderLayer(builder, options, number, "model.layers." + std::to_string(number)) {}

  void forward(Flow& flow) const override {
    const auto& x_TD = flow.at(field::kHidden);
    const auto a_TD =
        run_piece("attention", x_TD, flow,
                  [this](const at::Tensor& x, const Flow& side) { return attention(x, side); });
    const auto [h_TD, y_TD] = post_attention_layernorm_.forward_sum(x_TD, a_TD);
    can_make_again("norm", y_TD, h_TD,
                   [this](const at::Tensor& h) { return post_attention_layernorm_.forward(h); });
    flow.set(field::kHidden,
             h_TD + run_piece("mlp", y_TD, flow, [this](const at::Tensor& y, const Flow& side) {
               return mlp(y, side);
             }));
  }

  std::vector<std::string> modules() const override {
    return {"norm", "qkv_rope", "attention", "mlp_act", "mlp"};
  }

  Cost cost(const FlowSize& size) const override {
    const double D = options_.hidden_size, I = options_.intermediate_size, T = size.tokens;
    const double kv = options_.num_key_value_heads * options_.head_dim(),
                 H = options_.num_attention_heads;
    return {.forward_flop =
                T * (2 * (2 * D * D + 2 * D * kv + 3 * D * I) + 2 * size.mean_square_length * D),
            .activation_bytes = T * (14 * D + 6 * kv + 8 * I + 4 * H)};
  }

 private:
  DecoderLayer(ParameterBuilder& builder, const TextOptions& o, int64_t number,
               const std::string& path)
      : Layer(path, "text"),
        options_(o),
        number_(number),
        groups_(builder.groups()),
        region_(builder),
        input_layernorm_(builder, path + ".input_layernorm", "text", o.hidden_size, o.rms_norm_eps),
        post_attention_layernorm_(builder, path + ".post_attention_layernorm", "text",
                                  o.hidden_size, o.rms_norm_eps),
        q_proj_(builder, path + ".self_attn.q_proj", "text", o.hidden_size,
                o.num_attention_heads * o.head_dim(), true, LinearSplit::column(o.head_dim()),
                o.initializer_range),
        k_proj_(builder, path + ".self_attn.k_proj", "text", o.hidden_size,
                o.num_key_value_heads * o.head_dim(), true, LinearSplit::column(o.head_dim()),
                o.initializer_range),
        v_proj_(builder, path + ".self_attn.v_proj", "text", o.hidden_size,
                o.num_key_value_heads * o.head_dim(), true, LinearSplit::column(o.head_dim()),
                o.initializer_range),
        o_proj_(builder, path + ".self_attn.o_proj", "text", o.num_attention_heads * o.head_dim(),
                o.hidden_size, false, LinearSplit::row(o.head_dim()), o.initializer_range),
        gate_proj_(builder, path + ".mlp.gate_proj", "text", o.hidden_size, o.intermediate_size,
                   false, LinearSplit::column(), o.initializer_range),
        up_proj_(builder, path + ".mlp.up_proj", "text", o.hidden_size, o.intermediate_size, false,
                 LinearSplit::column(), o.initializer_range),
        down_proj_(builder, path + ".mlp.down_proj", "text", o.intermediate_size, o.hidden_size,
                   false, LinearSplit::row(), o.initializer_range) {
    parameters_ = {input_layernorm_.weight, post_attention_layernorm_.weight};
    for (const Linear* linear :
         {&q_proj_, &k_proj_, &v_proj_, &o_proj_, &gate_proj_, &up_proj_, &down_proj_}) {
      parameters_.push_back(linear->weight);
      if (linear->bias) parameters_.push_back(linear->bias);
    }
  }

  /// All tokens of a norm's result, for the split layers.
  at::Tensor enter(const at::Tensor& y_TD) const {
    const auto z_TD = region_.enter(y_TD);
    can_make_again("norm", z_TD, y_TD, [this](const at::Tensor& y) { return region_.enter(y); });
    return z_TD;
  }

  /// q, k and v, turned by their positions.
  std::vector<at::Tensor> project(const at::Tensor& z_TD, const Flow& flow) const {
    const int64_t K = options_.head_dim();
    const auto& keys_T = flow.get(field::kDropoutKeys);
    const auto [q_THK, k_TGK] = rotary_qk(q_proj_.forward(z_TD, keys_T).unflatten(-1, {-1, K}),
                                          k_proj_.forward(z_TD, keys_T).unflatten(-1, {-1, K}),
                                          flow.at(field::kCos), flow.at(field::kSin));
    return {q_THK, k_TGK, v_proj_.forward(z_TD, keys_T).unflatten(-1, {-1, K})};
  }

  at::Tensor attention(const at::Tensor& x_TD, const Flow& flow) const {
    const auto y_TD = input_layernorm_.forward(x_TD);
    can_make_again("norm", y_TD, x_TD,
                   [this](const at::Tensor& x) { return input_layernorm_.forward(x); });
    const auto z_TD = enter(y_TD);
    const auto qkv = project(z_TD, flow);
    can_make_again("qkv_rope", qkv, {z_TD}, flow,
                   [this](const auto& z, const Flow& side) { return project(z[0], side); });
    const auto &q_THK = qkv[0], &k_TGK = qkv[1], &v_TGK = qkv[2];
    const auto a_THK = flow.has(field::kCacheLength)
                           ? append_and_attend(q_THK, k_TGK, v_TGK, flow)
                           : context_attention(q_THK, k_TGK, v_TGK, flow.at(field::kSampleBounds),
                                               groups_, {.causal = true});
    return o_proj_.forward(a_THK.flatten(-2), flow.get(field::kDropoutKeys));
  }

  at::Tensor mlp(const at::Tensor& y_TD, const Flow& flow) const {
    const auto& keys_T = flow.get(field::kDropoutKeys);
    const auto z_TD = enter(y_TD);
    const auto gate_TI = gate_proj_.forward(z_TD, keys_T), up_TI = up_proj_.forward(z_TD, keys_T);
    const auto act_TI = swiglu(gate_TI, up_TI);
    can_make_again("mlp_act", {act_TI}, {gate_TI, up_TI}, flow,
                   [](const auto& in, const Flow&) { return std::vector{swiglu(in[0], in[1])}; });
    return down_proj_.forward(act_TI, keys_T);
  }

  /// Generation: appends k and v to this layer's cache, then attends to all of it.
  at::Tensor append_and_attend(const at::Tensor& q_THK, const at::Tensor& k_TGK,
                               const at::Tensor& v_TGK, const Flow& flow) const {
    const int64_t before = flow.at(field::kCacheLength).item<int64_t>(), T = q_THK.size(0);
    auto k_SGK = flow.at(field::kCacheKeys).select(0, number_).narrow(0, 0, before + T);
    auto v_SGK = flow.at(field::kCacheValues).select(0, number_).narrow(0, 0, before + T);
    k_SGK.narrow(0, before, T).copy_(k_TGK);
    v_SGK.narrow(0, before, T).copy_(v_TGK);
    return cached_attention(q_THK, k_SGK, v_SGK);
  }

  TextOptions options_;
  int64_t number_;
  ModelGroups groups_;
  TensorRegion region_;
  RmsNorm input_layernorm_, post_attention_layernorm_;
  Linear q_proj_, k_proj_, v_proj_, o_proj_, gate_proj_, up_proj_, down_proj_;
};

/// Final norm and vocabulary projection, on those tokens only whose loss or logits are wanted.
class Head : public Layer {
 public:
  Head(ParameterBuilder& builder, const TextOptions& options, const ParameterPtr& embedding)
      : Layer("lm_head", "text"),
        groups_(builder.groups()),
        region_(builder),
        norm_(builder, "model.norm", "text", options.hidden_size, options.rms_norm_eps,
              Place::kInRegion),
        weight_(options.tie_word_embeddings
                    ? embedding
                    : make_vocabulary(builder, "lm_head.weight", "text", options.vocab_size,
                                      options.hidden_size, options.initializer_range)) {
    parameters_ = {norm_.weight, weight_};
  }

  void forward(Flow& flow) const override {
    const auto& x_TD = flow.at(field::kHidden);
    if (flow.has(field::kLabelRows)) {
      const auto x_ND = norm_.forward(region_.enter_rows(x_TD, flow.at(field::kLabelRows)));
      const auto result = vocabulary_cross_entropy(x_ND, *weight_, flow.at(field::kLabels),
                                                   flow.at(field::kLabelWeights), groups_);
      flow.set(field::kLoss, result.total);
      flow.set(field::kTokenLosses, result.losses);
    }
    if (flow.has(field::kLogitRows)) {
      const auto x_MD = norm_.forward(region_.enter_rows(x_TD, flow.at(field::kLogitRows)));
      flow.set(field::kLogits, vocabulary_logits(x_MD, *weight_, groups_));
    }
    flow.erase(field::kHidden);
  }

  Cost cost(const FlowSize& size) const override {
    const double D = weight_->full_shape[1], V = weight_->full_shape[0];
    return {.forward_flop = 2.0 * size.label_tokens * D * V,
            .activation_bytes = 4.0 * size.label_tokens * D};
  }

 private:
  ModelGroups groups_;
  TensorRegion region_;
  RmsNorm norm_;
  ParameterPtr weight_;
};

}  // namespace

void append_text_layers(LayerList& layers, ParameterBuilder& builder, const Options& options) {
  auto embedding = std::make_unique<Embedding>(builder, options);
  const auto weight = embedding->weight;
  layers.push_back(std::move(embedding));
  for (int64_t number = 0; number < options.text.num_hidden_layers; ++number) {
    layers.push_back(std::make_unique<DecoderLayer>(builder, options.text, number));
  }
  layers.push_back(std::make_unique<Head>(builder, options.text, weight));
}

}  // namespace triptych::qwen2_5_vl
