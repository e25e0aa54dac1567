// What autograd keeps: results that are made again, pieces that run again, activations on the host.

#include "parallel/saved_tensors.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "parallel/activation_offload.h"
#include "parallel/segments.h"

namespace triptych {
namespace {

/// A layer of one parameter, for its name and its storage.
class Scaled : public Layer {
 public:
  Scaled() : Layer("scaled", "text") {
    auto p = std::make_shared<Parameter>();
    p->value = at::arange(1, 65, at::kFloat).view({8, 8}).set_requires_grad(true);
    parameters_ = {p};
  }
  void forward(Flow&) const override {}
  Cost cost(const FlowSize&) const override { return {}; }
  const at::Tensor& weight() const { return parameters_[0]->value; }
};

at::Tensor some_values() {
  return at::arange(64, at::kFloat).view({8, 8}).div(64).set_requires_grad(true);
}

using WeakStorage = c10::weak_intrusive_ptr<c10::StorageImpl>;
WeakStorage storage_of(const at::Tensor& tensor) { return tensor.storage().getWeakStorageImpl(); }

TEST(SavedTensors, AreSeenByThisLibtorch) { EXPECT_TRUE(saved_tensors_are_seen()); }

TEST(SavedTensors, ChosenResultsAreMadeAgainOnceAndOnlyThen) {
  const Scaled layer;
  const auto x = some_values();
  int made = 0;
  at::Tensor loss;
  std::optional<WeakStorage> kept;
  {
    const LayerMemory memory{.modules = {"act"}};
    const LayerScope scope(layer, memory, nullptr);
    const auto act = at::tanh(x.mul(2));
    can_make_again("act", act, x, [&made](const at::Tensor& in) {
      ++made;
      EXPECT_FALSE(at::GradMode::is_enabled());
      return at::tanh(in.mul(2));
    });
    kept = storage_of(act);
    // saved as it is, transposed, and as a part: three views of one result
    loss = (at::mm(act, layer.weight()).sum() + at::mm(act.t(), layer.weight()).sum() +
            act.narrow(0, 2, 3).mul(layer.weight().narrow(0, 0, 3)).sum());
  }
  // tanh saves its own result before it is declared
  EXPECT_FALSE(kept->expired());
  EXPECT_EQ(made, 0);
  loss.backward();
  EXPECT_EQ(made, 1);
  EXPECT_TRUE(kept->expired());

  const auto y = some_values();
  layer.weight().mutable_grad() = at::Tensor();
  const auto got = x.grad();
  const auto act = at::tanh(y.mul(2));
  (at::mm(act, layer.weight()).sum() + at::mm(act.t(), layer.weight()).sum() +
   act.narrow(0, 2, 3).mul(layer.weight().narrow(0, 0, 3)).sum())
      .backward();
  EXPECT_TRUE(got.equal(y.grad()));
}

TEST(SavedTensors, WhatIsMadeAgainIsNotKept) {
  const Scaled layer;
  const auto x = some_values();
  const auto run = [&](std::vector<std::string> modules) {
    const LayerMemory memory{.modules = std::move(modules)};
    const LayerScope scope(layer, memory, nullptr);
    const auto shifted = x + 1;  // saves nothing
    can_make_again("shift", shifted, x, [](const at::Tensor& in) { return in + 1; });
    return std::pair(at::mm(shifted, layer.weight()).sum(), storage_of(shifted));
  };
  auto [loss, chosen] = run({"shift"});
  EXPECT_TRUE(chosen.expired());
  loss.backward();
  const auto gradient = layer.weight().grad().clone();
  layer.weight().mutable_grad() = at::Tensor();
  auto [other, not_chosen] = run({"something else"});
  EXPECT_FALSE(not_chosen.expired());
  other.backward();
  EXPECT_TRUE(gradient.equal(layer.weight().grad()));
}

TEST(SavedTensors, PiecesRunAgainFromTheirInput) {
  const Scaled layer;
  const auto x = some_values();
  int runs = 0;
  const auto loss_of = [&](const LayerMemory& memory) {
    const LayerScope scope(layer, memory, nullptr);
    return run_piece("piece", x, Flow(),
                     [&](const at::Tensor& in, const Flow&) {
                       ++runs;
                       return at::mm(at::tanh(in), layer.weight());
                     })
        .sum();
  };
  loss_of({.modules = {"piece"}}).backward();
  EXPECT_EQ(runs, 2);
  const auto dx = x.grad().clone(), dw = layer.weight().grad().clone();
  x.mutable_grad() = at::Tensor();
  layer.weight().mutable_grad() = at::Tensor();
  loss_of({}).backward();
  EXPECT_EQ(runs, 3);
  EXPECT_TRUE(dx.equal(x.grad()));
  EXPECT_TRUE(dw.equal(layer.weight().grad()));
}

TEST(Offload, CopiesEachStorageOnceButNoParameterAndNothingSmall) {
  const Scaled layer;
  const auto x = some_values();
  ActivationOffload offload({.least_bytes = 256});
  offload.begin_pass();
  at::Tensor loss;
  std::optional<WeakStorage> large;
  {
    const LayerMemory memory{.offload = true};
    const LayerScope scope(layer, memory, &offload);
    const auto a = x * 3, small = x.narrow(0, 0, 1) * 2;  // 256 bytes, 32 bytes
    large = storage_of(a);
    // saved: a twice (once transposed), the weight thrice, small and its square
    loss = at::mm(a, layer.weight()).sum() + at::mm(layer.weight(), a.t()).sum() +
           small.mul(small).sum();
  }
  EXPECT_TRUE(large->expired());
  EXPECT_EQ(offload.counts().copies, 1);
  EXPECT_EQ(offload.counts().copied_bytes, 256);
  EXPECT_EQ(offload.counts().bytes_held, 256);
  loss.backward();
  EXPECT_EQ(offload.counts().fetches, 1);
  EXPECT_EQ(offload.counts().bytes_held, 0);

  const auto y = some_values();
  const auto got = x.grad(), dw = layer.weight().grad().clone();
  layer.weight().mutable_grad() = at::Tensor();
  const auto a = y * 3, small = y.narrow(0, 0, 1) * 2;
  (at::mm(a, layer.weight()).sum() + at::mm(layer.weight(), a.t()).sum() + small.mul(small).sum())
      .backward();
  EXPECT_TRUE(got.equal(y.grad()));
  EXPECT_TRUE(dw.equal(layer.weight().grad()));
}

TEST(Offload, GivesBackSizesStridesAndValues) {
  ActivationOffload offload({.least_bytes = 1});
  offload.begin_pass();
  const auto base = at::rand({6, 4, 10});
  for (const auto& view : {base, base.transpose(0, 2), base.select(1, 2), base.narrow(0, 5, 1),
                           base.slice(2, 1, 9, 3), base.to(at::kBFloat16), base.to(at::kDouble)}) {
    const auto packed = offload.pack(view);
    ASSERT_NE(packed, nullptr);
    const auto again = packed->unpack();
    EXPECT_TRUE(again.equal(view));
    EXPECT_EQ(again.strides(), view.strides());
    EXPECT_FALSE(again.is_alias_of(view));
    EXPECT_TRUE(packed->unpack().equal(view));  // twice, for a graph that is kept
  }
}

TEST(Offload, NoticesThatAStorageWasWrittenBetween) {
  ActivationOffload offload({.least_bytes = 1});
  offload.begin_pass();
  auto x = at::zeros({4});
  const auto before = offload.pack(x);
  x.fill_(1);
  const auto after = offload.pack(x);
  EXPECT_TRUE(before->unpack().equal(at::zeros({4})));
  EXPECT_TRUE(after->unpack().equal(at::ones({4})));
}

TEST(Offload, FetchesTheLayerBeforeAhead) {
  ActivationOffload offload({.least_bytes = 1});
  std::vector<std::unique_ptr<PackedTensor>> layers;
  for (int pass = 0; pass < 2; ++pass) {
    offload.begin_pass();
    for (int layer = 0; layer < 3; ++layer) {
      offload.begin_layer();
      layers.push_back(offload.pack(at::rand({4})));
    }
  }
  const auto ahead = [&](size_t i) {
    layers[i]->unpack();
    return offload.counts().fetched_ahead;
  };
  // the second pass waits while the first goes back, as in a pipeline
  EXPECT_EQ(ahead(2), 1);
  EXPECT_EQ(offload.counts().fetches, 2);
  EXPECT_EQ(ahead(1), 2);
  EXPECT_EQ(ahead(0), 3);  // that of the next pass's last layer
  EXPECT_EQ(offload.counts().fetches, 4);
  EXPECT_EQ(ahead(5), 4);
}

}  // namespace
}  // namespace triptych
