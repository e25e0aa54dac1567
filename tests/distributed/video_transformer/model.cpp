// The ends of the model: embedding of time and patches, head with its loss; and the list of layers.

#include "model.h"

#include <ATen/ATen.h>

#include "layers.h"
#include "nn/layer_norm.h"
#include "nn/linear.h"
#include "nn/modulation.h"
#include "nn/rms_norm.h"
#include "nn/tensor_region.h"
#include "parallel/collectives.h"

namespace triptych::video_transformer {

namespace {

constexpr double kEps = 1e-5;

/// The conditioning: made by the first layer, read by every block and by the head.
class TimeEmbedding : public Layer {
 public:
  TimeEmbedding(ParameterBuilder& builder, const Options& o)
      : Layer("time", "transformer"),
        size_(o.conditioning),
        linear1_(builder, "time.linear1", "transformer", size_, size_, true, LinearSplit::none(),
                 o.init_std),
        linear2_(builder, "time.linear2", "transformer", size_, size_, true, LinearSplit::none(),
                 o.init_std) {
    parameters_ = {linear1_.weight, linear1_.bias, linear2_.weight, linear2_.bias};
  }

  void forward(Flow& flow) const override {
    const auto frequencies = at::pow(0.5, at::arange(size_ / 2, at::kFloat)) * 20;
    const auto angles_BE = flow.at(field::kTime).unsqueeze(1) * frequencies;
    const auto e_BE =
        at::cat({angles_BE.cos(), angles_BE.sin()}, 1).to(linear1_.weight->value.scalar_type());
    flow.set(field::kConditioning, linear2_.forward(at::silu(linear1_.forward(e_BE))));
  }

  Cost cost(const FlowSize& /*size*/) const override { return {}; }

 private:
  int64_t size_;
  Linear linear1_, linear2_;
};

/// Text features and noisy patches, projected and joined sample by sample.
class PatchEmbedding : public Layer {
 public:
  PatchEmbedding(ParameterBuilder& builder, const Options& o)
      : Layer("patch", "transformer"),
        options_(o),
        groups_(builder.groups()),
        region_(builder),
        text_norm_(builder, "patch.text_norm", "transformer", o.text_hidden, kEps),
        text_(builder, "patch.text", "transformer", o.text_hidden, o.hidden, true,
              LinearSplit::between(), o.init_std),
        video_(builder, "patch.video", "transformer", o.patch_values, o.hidden, true,
               LinearSplit::between(), o.init_std) {
    parameters_ = {text_norm_.weight, text_.weight, text_.bias, video_.weight, video_.bias};
  }

  void forward(Flow& flow) const override {
    auto text_VD = text_norm_.forward(flow.at(field::kTextHidden));
    // Every tensor rank needs all text, to go on with its own part of the joint tokens.
    if (region_.tokens_split()) text_VD = gather_tokens(text_VD, groups_.tensor);
    const auto all = at::cat({text_.forward(text_VD), video_.forward(flow.at(field::kLatents))});
    flow.set(field::kHidden, all.index_select(0, region_.own_tokens(flow.at(field::kOrder))));
    flow.erase(field::kTextHidden);
    flow.erase(field::kLatents);
  }

  Cost cost(const FlowSize& size) const override {
    return {.forward_flop = 2.0 * static_cast<double>(options_.hidden) *
                            static_cast<double>(size.tokens * options_.text_hidden +
                                                size.patches * options_.patch_values)};
  }

 private:
  Options options_;
  ModelGroups groups_;
  TensorRegion region_;
  RmsNorm text_norm_;
  Linear text_, video_;
};

/// Velocity of the video tokens and its squared error; each tensor rank computes some of a patch's
/// values.
class Head : public Layer {
 public:
  Head(ParameterBuilder& builder, const Options& o)
      : Layer("head", "transformer"),
        options_(o),
        groups_(builder.groups()),
        region_(builder),
        norm_(builder, "head.norm", "transformer", o.hidden, kEps, Place::kInRegion),
        modulation_(builder, "head.linear", "transformer", o.conditioning, o.hidden, 2,
                    Place::kInRegion, o.init_std),
        out_(builder, "head.out", "transformer", o.hidden, o.patch_values, true,
             LinearSplit::column(), o.init_std) {
    parameters_ = {norm_.weight, norm_.bias, modulation_.linear().weight, modulation_.linear().bias,
                   out_.weight,  out_.bias};
  }

  void forward(Flow& flow) const override {
    const auto x_PD =
        norm_.forward(region_.enter_rows(flow.at(field::kHidden), flow.at(field::kVideoRows)));
    const auto m_2PD = modulation_.forward(flow.at(field::kConditioning))
                           .index_select(1, flow.at(field::kVideoSample));
    const auto v_PF = out_.forward(x_PD * (m_2PD[1] + 1) + m_2PD[0]).to(at::kFloat);
    const auto& held = out_.weight->held;
    const auto target_PF =
        flow.at(field::kTarget).narrow(1, held.empty() ? 0 : held[0].start, v_PF.size(1));
    const auto loss_P =
        (v_PF - target_PF).square().sum(1) / static_cast<double>(options_.patch_values);
    const auto own = (loss_P * flow.at(field::kWeights)).sum(at::kDouble);
    flow.set(field::kLoss, reduce_from_ranks(own, groups_.tensor));
    flow.set(field::kTokenLosses, loss_P.detach());
    flow.erase(field::kHidden);
  }

  Cost cost(const FlowSize& size) const override {
    return {.forward_flop =
                2.0 * static_cast<double>(size.patches * options_.hidden * options_.patch_values)};
  }

 private:
  Options options_;
  ModelGroups groups_;
  TensorRegion region_;
  LayerNorm norm_;
  Modulation modulation_;
  Linear out_;
};

}  // namespace

Model build(const Options& options, at::ScalarType dtype, const ModelGroups& groups) {
  ParameterBuilder builder(dtype, groups);
  Model model;
  model.layers.push_back(std::make_unique<TimeEmbedding>(builder, options));
  append_text_encoder(model.layers, builder, options);
  model.layers.push_back(std::make_unique<PatchEmbedding>(builder, options));
  for (int64_t i = 0; i < options.layers; ++i) {
    const auto path = "blocks." + std::to_string(i);
    model.layers.push_back(i % 2 == 0 ? make_joint_block(builder, options, path)
                                      : make_axes_block(builder, options, path));
  }
  model.layers.push_back(std::make_unique<Head>(builder, options));
  model.parameters = builder.parameters();
  model.linears = builder.linears();
  return model;
}

}  // namespace triptych::video_transformer
