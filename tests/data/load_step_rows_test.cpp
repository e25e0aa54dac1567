// What a plan reads of the data: the loader's rows, without a pixel.

#include <tuple>

#include "data/step_rows.h"
#include "tests/data/counting_loader.h"

namespace triptych {
namespace {

class StepRowsOf : public Loaders {};

TEST_F(StepRowsOf, APlanAreThoseThatRanksGetAndNothingIsDecoded) {
  const auto data = dataset(200, {{3, "bad"}, {40, "corrupt"}}, 2);
  for (const auto seed : {1, 5}) {
    for (const bool packing : {true, false}) {
      const LoaderOptions options{.max_length = 100,
                                  .packing = packing,
                                  .on_bad_sample = OnBadSample::kSkip,
                                  .workers = 3,
                                  .lookahead = 16};
      const CountingProcessor planner;
      const auto read = read_step_rows(data, planner, options, seed, 12, {.samples = 60});
      EXPECT_EQ(planner.made, 0);
      ASSERT_GE(read.steps.size(), 2);
      for (const auto& [ranks, micro_batch, balanced] :
           std::vector<std::tuple<int64_t, int64_t, bool>>{
               {1, 12, false}, {2, 3, false}, {3, 2, true}, {12, 1, true}}) {
        for (int64_t rank = 0; rank < ranks; ++rank) {
          LoaderLayout layout{rank, ranks, 12, micro_batch};
          if (balanced)
            layout.cost = [](int64_t tokens) { return 1e-3 * tokens * tokens + tokens; };
          const CountingProcessor processor;
          Loader loader(data, processor, options, seed, layout);
          for (const auto& step : read.steps)
            EXPECT_EQ(rows_of({.micro_batches = share_of_rank(layout, step)}),
                      rows_of(loader.next_step()))
                << ranks << " ranks of " << micro_batch << ", rank " << rank;
        }
      }
    }
  }
}

TEST_F(StepRowsOf, APlanAreNoMoreThanItIsTold) {
  const auto data = dataset(100);
  const CountingProcessor processor;
  const LoaderOptions options{.max_length = 100, .packing = false};
  const auto steps = [&](const StepRowsLimit& limit) {
    const auto read = read_step_rows(data, processor, options, 1, 10, limit);
    EXPECT_EQ(read.samples, static_cast<int64_t>(10 * read.steps.size()));
    return read.steps.size();
  };
  EXPECT_EQ(steps({.samples = 1}), 1);
  EXPECT_EQ(steps({.samples = 41}), 5);
  EXPECT_EQ(steps({.samples = 41, .steps = 2}), 2);
  EXPECT_EQ(steps({.samples = 1000}), 10);  // an epoch
}

}  // namespace
}  // namespace triptych
