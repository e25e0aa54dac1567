// Attention and exchanges over context ranks against the same on one rank, values and gradients.
#include "parallel/context_attention.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <torch/csrc/autograd/autograd.h>

#include "parallel/head_exchange.h"
#include "parallel/process_context.h"
#include "parallel/ring_exchange.h"
#include "parallel/row_exchange.h"
#include "parallel/sequence_split.h"
#include "ranks.h"

namespace triptych {
namespace {

using testing_ranks::run_ranks;
using Sizes = std::vector<int64_t>;

ProcessOptions quick() {
  return {.threads = 1, .timeout_s = 20, .check_collectives = true, .poll_s = 0.2};
}

/// Throws unless `got` is `want` up to `tolerance` of its largest value.
void expect_close(const at::Tensor& got, const at::Tensor& want, double tolerance,
                  const std::string& what) {
  require(got.sizes() == want.sizes(), what, ": ", got.sizes(), " instead of ", want.sizes());
  if (got.numel() == 0) return;
  const auto g = got.detach().to(at::kDouble), w = want.detach().to(at::kDouble);
  const double error = ((g - w).abs().max() / w.abs().max().clamp_min(1e-30)).item<double>();
  require(error <= tolerance, what, ": relative error ", error, " > ", tolerance);
}

struct Case {
  Sizes bounds;
  int64_t H, G;
  bool causal;
  at::ScalarType dtype;
  double tolerance;  // fp64 and fp32: order of sums; bf16: roundings of the inputs' size
};

// Very unequal samples: shorter than the number of chunks, empty, one token.
const Sizes kMixed{0, 1, 1, 4, 41, 47, 64};
const std::vector<Case> kCases = {
    {kMixed, 4, 2, true, at::kDouble, 1e-12},  {kMixed, 4, 2, false, at::kDouble, 1e-12},
    {{0, 37}, 4, 4, true, at::kDouble, 1e-12}, {kMixed, 4, 1, true, at::kFloat, 1e-5},
    {kMixed, 6, 2, true, at::kFloat, 1e-5},  // 2, 2, 1, 1 heads on 4 ranks; 3 a key head
    {kMixed, 8, 2, true, at::kFloat, 1e-5},  // 3, 3, 2 on 3 ranks: groups are torn apart
    {kMixed, 2, 1, true, at::kFloat, 1e-5},  // fewer heads than 3 or 4 ranks
    {{0, 0}, 4, 2, true, at::kFloat, 1e-5},  // no token at all
    {kMixed, 4, 2, true, at::kBFloat16, 3e-2}, {{0, 150, 190}, 4, 2, false, at::kBFloat16, 3e-2},
};

void check_case(const Case& c, const SequenceSplit& split, const ModelGroups& groups) {
  at::manual_seed(1);
  const int64_t T = c.bounds.back(), K = 16;
  const auto make = [&](int64_t heads) { return at::randn({T, heads, K}).to(c.dtype); };
  const std::vector<at::Tensor> whole{make(c.H), make(c.G), make(c.G)};
  const auto dout = make(c.H);
  const auto cu = at::tensor(c.bounds, at::kLong);
  const auto mine = at::tensor(split.rows(groups.ring->rank(), groups.ulysses->rank()), at::kLong);
  std::vector<at::Tensor> wide, own;
  for (const auto& x : whole) {
    wide.push_back(x.to(at::kDouble).detach().clone().set_requires_grad(true));
    own.push_back(x.index_select(0, mine).set_requires_grad(true));
  }
  const AttentionOptions options{.causal = c.causal};
  const auto want = varlen_attention(wide[0], wide[1], wide[2], cu, options);
  torch::autograd::backward({want}, {dout.to(at::kDouble)});
  const auto padding =
      static_cast<int64_t>(c.bounds.size()) % 3;  // rows behind the tokens take no part
  const auto padded = [&](const at::Tensor& x) {
    return at::cat({x, at::full({padding, x.size(1), K}, 7.0, x.options().requires_grad(false))});
  };
  auto got = context_attention(padded(own[0]), padded(own[1]), padded(own[2]), cu, groups, options);
  require(got.narrow(0, mine.size(0), padding).eq(0).all().item<bool>(), "padding is not zero");
  got = got.narrow(0, 0, mine.size(0));
  torch::autograd::backward({got}, {dout.index_select(0, mine)});
  expect_close(got, want.index_select(0, mine), c.tolerance, "output");
  for (size_t i = 0; i < 3; ++i) {
    expect_close(own[i].grad(), wide[i].grad().index_select(0, mine), c.tolerance,
                 std::string("gradient of ") + "qkv"[i]);
  }
}

int attention(const Json& config) {
  ProcessContext process(read_launch_environment(), quick());
  process.set_mesh(
      {.context = config.at("ring").get<int64_t>() * config.at("ulysses").get<int64_t>(),
       .ulysses = config.at("ulysses").get<int64_t>()});
  ModelGroups groups;
  groups.context = &process.group(kContextGroup);
  groups.ulysses = &process.group(kUlyssesGroup);
  groups.ring = &process.group(kRingGroup);
  for (size_t i = 0; i < kCases.size(); ++i) {
    const auto& c = kCases[i];
    try {
      check_case(c, SequenceSplit(c.bounds, groups.ring->size(), groups.ulysses->size(), c.causal),
                 groups);
    } catch (const std::exception& error) {
      fail("case ", i, ", rank ", process.rank(), ": ", error.what());
    }
  }
  process.close();
  return 0;
}

struct Layout {
  int64_t ulysses, ring;
};
void PrintTo(const Layout& l, std::ostream* out) {
  *out << "ulysses " << l.ulysses << " x ring " << l.ring;
}
class Layouts : public testing::TestWithParam<Layout> {};

void expect_success(const testing_ranks::Started& started) {
  for (const auto& rank : started.ranks) EXPECT_EQ(rank.status, 0) << rank.output;
}

TEST_P(Layouts, EqualOneRank) {
  const auto [ulysses, ring] = GetParam();
  expect_success(run_ranks(static_cast<int>(ulysses * ring), "attention",
                           {{"ulysses", ulysses}, {"ring", ring}}));
}

INSTANTIATE_TEST_SUITE_P(Rows, Layouts,
                         testing::Values(Layout{2, 1}, Layout{3, 1}, Layout{4, 1}, Layout{1, 2},
                                         Layout{1, 3}, Layout{1, 4}, Layout{2, 2}, Layout{3, 2},
                                         Layout{2, 3}));

/// Every exchange of rows or dims against the same on whole tensors.
int exchanges(const Json& /*config*/) {
  ProcessContext process(read_launch_environment(), quick());
  auto& world = process.world();
  const int64_t me = world.rank(), N = world.size();
  at::manual_seed(2);

  {  // rows: rank i sends (i + 2 j) % 4 rows to rank j
    const auto count = [](int64_t i, int64_t j) { return (i + 2 * j) % 4; };
    Sizes send, receive;
    std::vector<at::Tensor> blocks, want;
    for (int64_t i = 0; i < N; ++i) {
      for (int64_t j = 0; j < N; ++j) {
        const auto block = at::randn({count(i, j), 3}, at::kDouble);
        if (i == me) {
          send.push_back(count(i, j));
          blocks.push_back(block);
        }
        if (j == me) {
          receive.push_back(count(i, j));
          want.push_back(block);
        }
      }
    }
    const auto x = at::cat(blocks).set_requires_grad(true);
    const auto y = exchange_rows(x, send, receive, world);
    expect_close(y, at::cat(want), 0, "rows");
    torch::autograd::backward({y}, {2 * y.detach()});
    expect_close(x.grad(), 2 * x, 0, "rows, backward");
  }
  {  // route: every rank needs each other's row 0 twice and of rank 1 all rows; nobody row 1 of 0
    Sizes rows, send, receive;
    const int64_t R = 3;
    for (int64_t j = 0; j < N; ++j) {
      const Sizes needed = me == 1 ? Sizes{0, 0, 1, 2} : Sizes{0, 0};
      rows.insert(rows.end(), needed.begin(), needed.end());
      send.push_back(static_cast<int64_t>(needed.size()));
      receive.push_back(j == 1 ? 4 : 2);
    }
    const auto x = (at::arange(R * 2, at::kDouble).view({R, 2}) + 100.0 * static_cast<double>(me))
                       .set_requires_grad(true);
    const auto y = route_rows(x, {at::tensor(rows, at::kLong), send, receive}, world);
    require(y.size(0) == 2 * N + 2 && y[0][0].item<double>() == 0 && y[5][1].item<double>() == 105,
            "route: ", y.sizes());
    torch::autograd::backward({y.sum()});
    const double twice = 2.0 * static_cast<double>(N), once = me == 1 ? static_cast<double>(N) : 0;
    expect_close(x.grad().select(1, 0), at::tensor({twice, once, once}, at::kDouble), 0,
                 "route, backward");
  }
  {  // switch of the split dim, uneven, one part empty
    Sizes from, to;
    for (int64_t i = 0; i < N; ++i) {
      from.push_back(i == 1 ? 0 : 2 + i);
      to.push_back(1 + i * 3 % 4);
    }
    const auto sum = [](const Sizes& s) {
      int64_t total = 0;
      for (const auto n : s) total += n;
      return total;
    };
    const auto part = [&](const at::Tensor& x, int64_t dim, const Sizes& sizes) {
      int64_t begin = 0;
      for (int64_t i = 0; i < me; ++i) begin += sizes[i];
      return x.narrow(dim, begin, sizes[me]).contiguous();
    };
    const auto whole = at::randn({2, sum(from), 3, sum(to)}, at::kDouble);
    const auto x = part(whole, 1, from).set_requires_grad(true);
    const auto y = switch_dim(x, 1, 3, from, to, world);
    expect_close(y, part(whole, 3, to), 0, "switch");
    torch::autograd::backward({y}, {3 * y.detach()});
    expect_close(x.grad(), 3 * x, 0, "switch, backward");

    const auto all = whole.clone().set_requires_grad(true);
    const auto gathered = gather_dim(split_dim(all, 1, from, world).cos(), 1, from, world);
    expect_close(gathered, whole.cos(), 1e-15, "split and gather");
    torch::autograd::backward({gathered}, {whole});
    expect_close(all.grad(), -whole.sin() * whole, 1e-15, "split and gather, backward");
  }
  {  // ring: after N hops everyone has its own block again; blocks differ in size
    auto block = at::full({me, 2}, static_cast<double>(me));
    for (int64_t hop = 1; hop <= N; ++hop) {
      const int64_t from = (me - hop + N) % N;
      RingHop next(block, {from, 2}, world, "test");
      block = next.wait();
      expect_close(block, at::full({from, 2}, static_cast<double>(from)), 0, "ring");
    }
  }
  process.close();
  return 0;
}

TEST(Exchanges, EqualOneRank) {
  for (const int ranks : {2, 3, 4}) expect_success(run_ranks(ranks, "exchanges", Json::object()));
}

TEST(HeadSplit, GivesEveryRankTheKeysOfItsQueries) {
  const HeadSplit split(8, 2, 3);  // 3, 3, 2 query heads; four read one key head
  EXPECT_EQ(split.queries(1).begin, 3);
  EXPECT_EQ(split.keys(0).size(), 1);
  EXPECT_EQ(split.keys(1).size(), 2);
  EXPECT_EQ(split.keys(2).begin, 1);
  EXPECT_THAT(split.uneven_groups(0), testing::IsEmpty());
  EXPECT_THAT(split.uneven_groups(1), testing::ElementsAre(0, 1, 1));
}

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  triptych::testing_ranks::add_scenario("attention", triptych::attention);
  triptych::testing_ranks::add_scenario("exchanges", triptych::exchanges);
  return triptych::testing_ranks::run_main(argc, argv);
}
