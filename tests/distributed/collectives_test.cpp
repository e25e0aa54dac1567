// The collectives that autograd understands: values and gradients against what one process computes
// with all parts at hand. Inputs have odd strides, and are looked at again afterwards.

#include "parallel/collectives.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <chrono>
#include <iostream>

#include "parallel/head_exchange.h"
#include "parallel/launch_environment.h"
#include "parallel/process_context.h"
#include "parallel/rendezvous.h"
#include "parallel/ring_exchange.h"
#include "parallel/weight_gradients.h"
#include "ranks.h"

namespace triptych {
namespace {

using testing_ranks::run_ranks;
using Function = at::Tensor (*)(const at::Tensor&, Group*);

/// One function at one rank: x and the gradient of its output are functions of the rank.
struct Check {
  ProcessContext& process;
  at::ScalarType dtype;
  int failures = 0;

  at::Tensor numbers(std::vector<int64_t> shape, int64_t key) const {
    int64_t count = 1;
    for (const auto size : shape) count *= size;
    // small whole numbers: exact in bf16, and in any order of summation
    return ((at::arange(count, at::kLong) * 7 + key * 5) % 13 - 6).view(shape).to(dtype);
  }

  /// @param want, want_gradient  of this rank, from the inputs and output gradients of all.
  void run(const char* name, Function function, const std::vector<int64_t>& shape,
           const std::function<at::Tensor(const std::vector<at::Tensor>&, int64_t)>& want,
           const std::function<at::Tensor(const std::vector<at::Tensor>&, int64_t)>& backward) {
    auto& group = process.world();
    std::vector<at::Tensor> inputs, gradients;
    for (int64_t r = 0; r < group.size(); ++r) inputs.push_back(numbers(shape, r));
    // the transpose of a transposed copy: not contiguous
    const auto strange = inputs[static_cast<size_t>(group.rank())].t().contiguous().t();
    const auto x = strange.detach().requires_grad_(true);
    const auto y = function(x, &group);
    const auto expected = want(inputs, group.rank());
    for (int64_t r = 0; r < group.size(); ++r)
      gradients.push_back(numbers(y.sizes().vec(), 10 + r));
    const auto& dy = gradients[static_cast<size_t>(group.rank())];
    y.backward(dy.t().contiguous().t());
    const bool good = y.equal(expected) && x.grad().equal(backward(gradients, group.rank())) &&
                      x.detach().equal(inputs[static_cast<size_t>(group.rank())]) &&
                      dy.equal(numbers(y.sizes().vec(), 10 + group.rank())) &&
                      y.scalar_type() == dtype && x.grad().scalar_type() == dtype;
    if (good) return;
    ++failures;
    std::cerr << name << " on rank " << group.rank() << ": " << y << expected << x.grad()
              << backward(gradients, group.rank()) << '\n';
  }
};

at::Tensor sum_of(const std::vector<at::Tensor>& all) {
  auto sum = at::zeros_like(all.front());
  for (const auto& x : all) sum = sum + x;
  return sum;
}
at::Tensor part_of_rank(const at::Tensor& whole, int64_t rank, int64_t ranks) {
  const int64_t n = whole.size(0) / ranks;
  return whole.narrow(0, rank * n, n);
}

int check_all(const Json& config) {
  ProcessContext process(read_launch_environment(), {});
  Check check{process, config.at("bf16").get<bool>() ? at::kBFloat16 : at::kFloat};
  const int64_t ranks = process.world_size();
  using All = std::vector<at::Tensor>;
  const auto own = [](const All& all, int64_t r) { return all[static_cast<size_t>(r)]; };
  const auto sum = [](const All& all, int64_t) { return sum_of(all); };
  const auto joined = [](const All& all, int64_t) { return at::cat(all); };
  const auto own_of_sum = [&](const All& all, int64_t r) {
    return part_of_rank(sum_of(all), r, ranks);
  };
  const auto own_part = [&](const All& all, int64_t r) {
    return part_of_rank(all[static_cast<size_t>(r)], r, ranks);
  };
  const std::vector<int64_t> part = {3, 5}, whole = {3 * ranks, 5};
  check.run("copy_to_ranks", copy_to_ranks, part, own, sum);
  check.run("reduce_from_ranks", reduce_from_ranks, part, sum, own);
  check.run("gather_tokens", gather_tokens, part, joined, own_of_sum);
  check.run("scatter_sum_tokens", scatter_sum_tokens, whole, own_of_sum, joined);
  check.run("split_tokens", split_tokens, whole, own_part, joined);
  check.run("gather_tokens_replicated", gather_tokens_replicated, part, joined, own_part);
  process.close();
  return check.failures;
}

/// Rank 1 comes late to each exchange: not before rank 0 has computed half of what waits. A rank 0
/// that waits for the exchange first would do so in vain, and the test end at its limit. Of the two
/// exchanges of heads the second takes half of the rest.
int check_beside(const Json& /*config*/) {
  const auto environment = read_launch_environment();
  ProcessContext process(environment, {});
  constexpr int kLimitS = 50;  // below that of the processes
  const auto store = connect_again(environment, kLimitS);
  auto& group = process.world();
  const auto products = std::make_shared<WeightGradients>();
  products->keep_for_exchanges(9);
  group.keep_busy_with(products);
  int failures = 0;
  const auto exchange = [&](const std::string& name, int expected,
                            const std::function<void()>& run) {
    int done = 0;
    for (int i = 0; i < 4; ++i) {
      products->put_off([&] {
        if (++done == 2 && group.rank() == 0) store->set(name, "half of them");
      });
    }
    group.barrier();
    if (group.rank() == 1) store->wait({name}, std::chrono::seconds(kLimitS));
    run();
    const int at_exchange = done;
    products->run_waiting();
    if (at_exchange == expected) return;
    ++failures;
    std::cerr << name << ": " << at_exchange << " of " << expected << " products are done\n";
  };
  const auto backward = [&](const char* name, Function function) {
    const auto x = at::ones({4, 3}).requires_grad_(true);
    const auto y = function(x, &group);
    exchange(name, 2, [&] { y.backward(at::ones_like(y)); });
  };
  backward("copy_to_ranks", copy_to_ranks);
  backward("gather_tokens", gather_tokens);
  backward("scatter_sum_tokens", scatter_sum_tokens);
  exchange("RingHop", 2, [&] { RingHop(at::ones({6}), {6}, group, "hop").wait(); });
  const auto q = at::ones({2, 2, 4}).requires_grad_(true);
  const auto share = scatter_heads(q, q, q, {2, 2}, group);
  const auto o = gather_heads(share.q, 2, {2, 2}, group);
  exchange("gather_heads", 3, [&] { o.sum().backward(); });
  process.close();
  return failures;
}

TEST(Exchanges, OfBackwardLeaveTimeForWeightGradients) {
  for (const auto& end : run_ranks(2, "beside", {}).ranks) EXPECT_EQ(end.status, 0) << end.output;
}

class Collectives : public testing::TestWithParam<std::pair<int, bool>> {};

TEST_P(Collectives, HaveTheirGradients) {
  const auto [ranks, bf16] = GetParam();
  for (const auto& end : run_ranks(ranks, "collectives", {{"bf16", bf16}}).ranks)
    EXPECT_EQ(end.status, 0) << end.output;
}

INSTANTIATE_TEST_SUITE_P(Ranks, Collectives,
                         testing::Values(std::pair(2, false), std::pair(3, false),
                                         std::pair(4, true)));

TEST(GroupOfOne, IsNoOperation) {
  Group alone;
  const auto x = at::ones({2, 3}).requires_grad_(true);
  for (const Function function : {copy_to_ranks, reduce_from_ranks, gather_tokens,
                                  scatter_sum_tokens, split_tokens, gather_tokens_replicated}) {
    EXPECT_TRUE(function(x, &alone).is_same(x));
    EXPECT_TRUE(function(x, nullptr).is_same(x));
  }
}

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  triptych::testing_ranks::add_scenario("collectives", triptych::check_all);
  triptych::testing_ranks::add_scenario("beside", triptych::check_beside);
  return triptych::testing_ranks::run_main(argc, argv);
}
