// Parameters that ranks share out, on a model whose ranks run other layers than each other: some
// without the picture tower, one without anything to compute.
#include "parallel/parameter_shards.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <functional>
#include <optional>

#include "base/format.h"
#include "nn/model.h"
#include "parallel/process_context.h"
#include "parallel/shard_groups.h"
#include "parallel/sharded_optimizer.h"
#include "ranks.h"
#include "train/run_layers.h"

namespace triptych {
namespace {

using testing_ranks::run_ranks;

constexpr int64_t D = 24;  // width of all layers
constexpr int64_t kLayers = 7;
constexpr int64_t kLayerBytes = 1280 * 4;  // at most: 24 x 24 and 24 fp32 with all padding

ParameterPtr make(const std::string& name, std::vector<int64_t> shape) {
  const auto p = std::make_shared<Parameter>();
  p->name = name;
  p->full_shape = shape;
  p->value = at::empty(shape, at::TensorOptions(at::kMeta).dtype(at::kFloat));
  return p;
}

at::Tensor value_of(const Parameter& p, int64_t seed) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(seed));
  return at::randn(p.full_shape, generator, at::kFloat) * 0.2;
}

/// x = tanh(x W^T + b), or picture = ... for layers of the tower, which do nothing without one.
class Affine : public Layer {
 public:
  Affine(const std::string& name, std::string field, ParameterPtr weight, ParameterPtr bias)
      : Layer(name, field), field_(std::move(field)) {
    parameters_ = {std::move(weight), std::move(bias)};
  }
  void forward(Flow& flow) const override {
    const auto& x = flow.get(field_);
    if (!x.defined()) return;
    if (seen != nullptr) *seen = std::max(*seen, (*bytes)());
    flow.set(field_, at::tanh(at::linear(x, parameters_[0]->value, parameters_[1]->value)));
  }
  Cost cost(const FlowSize& /*size*/) const override { return {}; }
  std::function<int64_t()>* bytes = nullptr;
  int64_t* seen = nullptr;

 private:
  std::string field_;
};

/// x += the picture's mean; the layer between tower and text.
class Join : public Layer {
 public:
  Join() : Layer("join", "x") {}
  void forward(Flow& flow) const override {
    if (flow.has("picture")) flow.set("x", flow.at("x") + flow.at("picture").mean(0));
    flow.erase("picture");
  }
  Cost cost(const FlowSize& /*size*/) const override { return {}; }
};

/// Two layers of a tower, a join, four of text, of which the first and the last share their weight.
Model make_model(bool frozen_tower) {
  Model model;
  const auto tied = make("tied", {D, D});
  for (int64_t i = 0; i < kLayers; ++i) {
    if (i == 2) {
      model.layers.push_back(std::make_unique<Join>());
      continue;
    }
    const auto name = fmt::format("layers.{}", i);
    const auto weight = i == 3 || i == 6 ? tied : make(name + ".weight", {D, D});
    const auto bias = make(name + ".bias", {D});
    weight->trained = bias->trained = !(frozen_tower && i < 2);
    if (i != 6) model.parameters.push_back(weight);
    model.parameters.push_back(bias);
    model.layers.push_back(std::make_unique<Affine>(name, i < 2 ? "picture" : "x", weight, bias));
  }
  return model;
}

/// What rank `rank` computes in micro-batch `m`; nothing: it has no label there.
std::optional<Flow> flow_of(int64_t rank, int64_t m) {
  if (rank == 2 && m == 1) return std::nullopt;
  auto generator =
      at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(100 + 10 * rank + m));
  Flow flow;
  flow.set("x", at::randn({3, D}, generator, at::kFloat));
  if ((rank + m) % 2 == 0) flow.set("picture", at::randn({5, D}, generator, at::kFloat));
  return flow;
}

at::Tensor loss_of(const Flow& flow) { return flow.at("x").square().sum(); }

/// The gradients of all ranks and micro-batches, by plain autograd.
std::map<std::string, at::Tensor> reference(bool frozen_tower, int64_t ranks) {
  const auto model = make_model(frozen_tower);
  for (size_t i = 0; i < model.parameters.size(); ++i) {
    auto& p = *model.parameters[i];
    p.value = value_of(p, static_cast<int64_t>(i)).set_requires_grad(p.trained);
  }
  for (int64_t rank = 0; rank < ranks; ++rank) {
    for (int64_t m = 0; m < 3; ++m) {
      auto flow = flow_of(rank, m);
      if (!flow) continue;
      run_layers(model, *flow);
      loss_of(*flow).backward();
    }
  }
  std::map<std::string, at::Tensor> gradients;
  for (const auto& p : model.parameters) {
    if (p->trained) gradients[p->name] = p->value.grad();
  }
  return gradients;
}

int shards_rank(const Json& config) {
  ProcessContext process(read_launch_environment(), {.threads = 1, .timeout_s = 20, .poll_s = 0.2});
  const bool frozen = config.at("frozen").get<bool>(), reshard = config.at("reshard").get<bool>();
  const auto prefetch = config.at("prefetch").get<int64_t>();
  auto model = make_model(frozen);
  auto groups = optimizer_groups(process, 3);
  model.shards = std::make_shared<ParameterShards>(
      model.layers, ShardedParameterSettings{
                        .group = groups.sharing.shards, .prefetch = prefetch, .reshard = reshard});
  auto& shards = *model.shards;
  for (size_t i = 0; i < model.parameters.size(); ++i) {
    auto& p = *model.parameters[i];
    shards.store(p, value_of(p, static_cast<int64_t>(i)));
  }
  for (size_t i = 0; i < model.parameters.size(); ++i) {
    const auto& p = *model.parameters[i];
    require(shards.whole(p).equal(value_of(p, static_cast<int64_t>(i))), p.name,
            " is not what was stored");
  }
  int64_t most = 0;
  std::function<int64_t()> bytes = [&] { return shards.gathered_bytes(); };
  for (const auto& layer : model.layers) {
    if (auto* affine = dynamic_cast<Affine*>(layer.get())) {
      affine->bytes = &bytes;
      affine->seen = &most;
    }
  }

  groups.parameters = &shards;
  ShardedOptimizer optimizer(model.parameters, {}, {.zero = 3}, groups);
  optimizer.begin_step(3);
  const LayerRange all{0, kLayers};
  for (int64_t m = 0; m < 3; ++m) {
    if (auto flow = flow_of(process.rank(), m)) {
      run_layers(model, *flow);
      loss_of(*flow).backward();
    } else {
      shards.idle_forward(all);
    }
    optimizer.finish_micro_batch();
  }
  require(bytes() == 0, bytes(), " bytes stay gathered after the last backward");
  require(!reshard || most <= (1 + prefetch) * kLayerBytes, most, " bytes are gathered at once");

  const auto want = reference(frozen, process.world_size());
  for (const auto& range : optimizer.ranges()) {
    const auto part = want.at(range.name).view(-1).slice(0, range.begin, range.end);
    const auto got = optimizer.gradient(range);
    const double error = (got - part).abs().max().item<double>();
    // sums of the same numbers in another order
    require(error <= 1e-5 * want.at(range.name).abs().max().item<double>(), range.name,
            ": the gradient is off by ", error);
  }
  // forward alone, with the updated parameters: every rank sees the same
  optimizer.step({.learning_rate = 1e-2});
  const at::NoGradGuard no_grad;
  auto flow = *flow_of(0, 0);
  run_layers(model, flow);
  const auto loss = loss_of(flow), most_loss = loss.clone();
  process.world().all_reduce(most_loss, ReduceOp::kMax);
  require(loss.equal(most_loss), "ranks see other parameters");
  require(bytes() == 0, bytes(), " bytes stay gathered after a forward without gradients");
  process.close();
  return 0;
}

struct Case {
  int ranks;
  bool frozen, reshard;
  int64_t prefetch;
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.ranks << " ranks" << (c.frozen ? ", frozen tower" : "")
       << (c.reshard ? "" : ", kept after forward") << ", " << c.prefetch << " ahead";
}
class Shards : public testing::TestWithParam<Case> {};

TEST_P(Shards, GiveTheGradientsOfOneProcessAndNeverWaitForEver) {
  const auto [ranks, frozen, reshard, prefetch] = GetParam();
  const auto ended = run_ranks(
      ranks, "shards", {{"frozen", frozen}, {"reshard", reshard}, {"prefetch", prefetch}}, 60);
  for (int r = 0; r < ranks; ++r) {
    const auto& rank = ended.ranks[static_cast<size_t>(r)];
    EXPECT_EQ(rank.status, 0) << "rank " << r << ":\n" << rank.output;
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, Shards,
                         testing::Values(Case{2, false, true, 1}, Case{3, false, true, 0},
                                         Case{3, false, true, 2}, Case{3, true, true, 1},
                                         Case{3, false, false, 1}, Case{4, true, false, 9}));

TEST(ShardRanks, FallIntoGroupsOfACountOrAHost) {
  const auto all = shard_ranks({0, 2, 4, 6}, 4, ZeroGroup::kAll, 2);
  EXPECT_EQ(all.shards, (std::vector<int64_t>{0, 2, 4, 6}));
  EXPECT_EQ(all.replicas, (std::vector<int64_t>{4}));
  const auto two = shard_ranks({0, 2, 4, 6}, 4, 2, 8);
  EXPECT_EQ(two.shards, (std::vector<int64_t>{4, 6}));
  EXPECT_EQ(two.replicas, (std::vector<int64_t>{0, 4}));
  const auto host = shard_ranks({1, 3, 5, 7}, 3, ZeroGroup::kHost, 4);
  EXPECT_EQ(host.shards, (std::vector<int64_t>{1, 3}));
  EXPECT_EQ(host.replicas, (std::vector<int64_t>{3, 7}));
  const auto message = [](const char* text) {
    return testing::ThrowsMessage<UsageError>(testing::HasSubstr(text));
  };
  EXPECT_THAT([] { shard_ranks({0, 1, 2, 3}, 0, 3, 4); },
              message("parallel.zero_group = 3 does not divide the 4 ranks"));
  EXPECT_THAT([] { shard_ranks({0, 1, 4}, 0, ZeroGroup::kHost, 4); },
              message("one host holds 2 and another 1"));
}

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  triptych::testing_ranks::add_scenario("shards", triptych::shards_rank);
  return triptych::testing_ranks::run_main(argc, argv);
}
