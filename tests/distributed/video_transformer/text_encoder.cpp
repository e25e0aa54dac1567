// The text encoder: every token sees all of its sample's text. Context ranks all compute it whole.

#include <ATen/ATen.h>

#include "kernels/swiglu.h"
#include "kernels/varlen_attention.h"
#include "layers.h"
#include "nn/linear.h"
#include "nn/rms_norm.h"
#include "nn/tensor_region.h"
#include "nn/vocabulary.h"

namespace triptych::video_transformer {

namespace {

constexpr double kEps = 1e-6;

class TextEmbedding : public Layer {
 public:
  TextEmbedding(ParameterBuilder& builder, const Options& o)
      : Layer("text.embedding", "text"),
        weight_(make_vocabulary(builder, "text.embedding.weight", "text", o.vocabulary,
                                o.text_hidden, o.init_std)),
        embedding_(weight_, builder.groups()) {
    parameters_ = {weight_};
  }

  void forward(Flow& flow) const override {
    flow.set(field::kTextHidden, embedding_.forward(flow.at(field::kTextIds), {}, {}));
  }

  Cost cost(const FlowSize& size) const override {
    return {.activation_bytes = 2.0 * static_cast<double>(size.tokens * weight_->full_shape[1])};
  }

 private:
  ParameterPtr weight_;
  TokenEmbedding embedding_;
};

class TextBlock : public Layer {
 public:
  TextBlock(ParameterBuilder& builder, const Options& o, const std::string& path)
      : Layer(path, "text"),
        size_(o.text_hidden),
        mlp_(o.text_mlp),
        head_dim_(o.text_hidden / o.text_heads),
        region_(builder),
        norm1_(builder, path + ".norm1", "text", size_, kEps),
        norm2_(builder, path + ".norm2", "text", size_, kEps),
        qkv_(builder, path + ".qkv", "text", size_, 3 * size_, false,
             LinearSplit::column(head_dim_, /*sections=*/3), o.init_std),
        out_(builder, path + ".out", "text", size_, size_, false, LinearSplit::row(head_dim_),
             o.init_std),
        gate_(builder, path + ".gate", "text", size_, o.text_mlp, false, LinearSplit::column(),
              o.init_std),
        up_(builder, path + ".up", "text", size_, o.text_mlp, false, LinearSplit::column(),
            o.init_std),
        down_(builder, path + ".down", "text", o.text_mlp, size_, false, LinearSplit::row(),
              o.init_std) {
    parameters_ = {norm1_.weight, norm2_.weight, qkv_.weight, out_.weight,
                   gate_.weight,  up_.weight,    down_.weight};
  }

  void forward(Flow& flow) const override {
    const auto& x_VD = flow.at(field::kTextHidden);
    const auto& keys_V = flow.get(field::kTextDropoutKeys);
    const auto qkv_V3HK =
        qkv_.forward(region_.enter(norm1_.forward(x_VD)), keys_V).unflatten(-1, {3, -1, head_dim_});
    const auto a_VHK = varlen_attention(qkv_V3HK.select(1, 0), qkv_V3HK.select(1, 1),
                                        qkv_V3HK.select(1, 2), flow.at(field::kTextBounds));
    const auto [h_VD, y_VD] = norm2_.forward_sum(x_VD, out_.forward(a_VHK.flatten(-2), keys_V));
    const auto z_VD = region_.enter(y_VD);
    const auto act = swiglu(gate_.forward(z_VD, keys_V), up_.forward(z_VD, keys_V));
    flow.set(field::kTextHidden, h_VD + down_.forward(act, keys_V));
  }

  Cost cost(const FlowSize& size) const override {
    const auto D = static_cast<double>(size_), I = static_cast<double>(mlp_);
    return {.forward_flop = 2.0 * static_cast<double>(size.tokens) * (4 * D * D + 3 * D * I)};
  }

 private:
  int64_t size_, mlp_, head_dim_;
  TensorRegion region_;
  RmsNorm norm1_, norm2_;
  Linear qkv_, out_, gate_, up_, down_;
};

}  // namespace

void append_text_encoder(LayerList& layers, ParameterBuilder& builder, const Options& options) {
  layers.push_back(std::make_unique<TextEmbedding>(builder, options));
  for (int64_t i = 0; i < options.text_layers; ++i) {
    layers.push_back(
        std::make_unique<TextBlock>(builder, options, "text.layers." + std::to_string(i)));
  }
}

}  // namespace triptych::video_transformer
