#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "data/loader.h"
#include "data/row_balance.h"
#include "tests/data/counting_loader.h"

namespace triptych {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

/// The global batch of each step, put together from all ranks by the rule of rows.
std::vector<std::vector<std::vector<uint64_t>>> global_steps(const Dataset& data,
                                                             LoaderOptions options, int64_t ranks,
                                                             int64_t micro_batch, int64_t steps,
                                                             const StreamState& begin = {}) {
  const CountingProcessor processor;
  constexpr int64_t kBatch = 12;
  std::vector<std::vector<std::vector<uint64_t>>> all(static_cast<size_t>(steps));
  for (auto& step : all) step.resize(kBatch);
  for (int64_t rank = 0; rank < ranks; ++rank) {
    Loader loader(data, processor, options, 5, {rank, ranks, kBatch, micro_batch}, begin);
    for (auto& step : all) {
      const auto batch = loader.next_step();
      EXPECT_EQ(batch.planned.rows, kBatch);
      EXPECT_EQ(batch.micro_batches.size(), kBatch / (ranks * micro_batch));
      const auto rows = rows_of(batch);
      for (int64_t i = 0; i < static_cast<int64_t>(rows.size()); ++i) {
        const auto m = i / micro_batch;
        const auto g = (m * ranks + rank) * micro_batch + i % micro_batch;
        EXPECT_EQ((g / micro_batch) % ranks, rank);
        step[static_cast<size_t>(g)] = rows[static_cast<size_t>(i)];
      }
    }
  }
  return all;
}

TEST_F(Loaders, AStepHoldsTheSameRowsInEveryLayout) {
  const auto data = dataset(70, {{3, "bad"}, {40, "bad"}}, 2);
  for (const bool packing : {true, false}) {
    const LoaderOptions options{.max_length = 100,
                                .packing = packing,
                                .on_bad_sample = OnBadSample::kSkip,
                                .workers = 3,
                                .lookahead = 16};
    const auto want = global_steps(data, options, 1, 1, 10);
    for (const auto& [ranks, micro_batch] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 12}, {2, 1}, {2, 3}, {3, 2}, {3, 4}, {4, 1}, {6, 2}, {12, 1}}) {
      auto other = options;
      other.workers = ranks;
      EXPECT_EQ(global_steps(data, other, ranks, micro_batch, 10), want) << ranks << micro_batch;
    }
  }
}

TEST_F(Loaders, BalancedStepsHoldTheSameRowsAtBetterPlaces) {
  const auto data = dataset(80, {}, 2);
  const LoaderOptions options{.max_length = 64, .packing = false, .workers = 2};
  const auto cost = [](int64_t tokens) { return static_cast<double>(tokens * tokens); };
  constexpr int64_t kBatch = 24, kSteps = 5;
  for (const auto& [ranks, micro_batch] :
       std::vector<std::pair<int64_t, int64_t>>{{2, 1}, {3, 2}, {4, 3}}) {
    const CountingProcessor processor;
    Loader plain(data, processor, options, 5, {0, 1, kBatch, kBatch});
    std::vector<std::unique_ptr<Loader>> loaders;
    for (int64_t rank = 0; rank < ranks; ++rank) {
      LoaderLayout layout{rank, ranks, kBatch, micro_batch};
      layout.cost = cost;
      loaders.push_back(std::make_unique<Loader>(data, processor, options, 5, layout));
    }
    for (int64_t step = 0; step < kSteps; ++step) {
      std::multiset<uint64_t> want, got;
      for (const auto& row : rows_of(plain.next_step())) want.insert(row.begin(), row.end());
      std::vector<double> loads;
      for (const auto& loader : loaders) {
        loads.push_back(0);
        const auto batch = loader->next_step();
        EXPECT_EQ(batch.micro_batches.size(), kBatch / (ranks * micro_batch));
        double before = 1e9;
        for (const auto& micro_batch_rows : batch.micro_batches) {
          EXPECT_EQ(micro_batch_rows.rows.size(), micro_batch);
          for (const auto& row : micro_batch_rows.rows) {
            const auto& sample = row.samples.front();
            const double here = cost(static_cast<int64_t>(sample.tokens.size()));
            EXPECT_LE(here, before);
            before = here;
            loads.back() += here;
            got.insert(sample.index);
          }
        }
        EXPECT_EQ(loader->state(), plain.state());
      }
      EXPECT_EQ(got, want);
      // Lengths of 2 to 61: 8 rows or more a rank come within a small part of the dearest row.
      const auto [least, most] = std::minmax_element(loads.begin(), loads.end());
      EXPECT_LE(*most - *least, 61.0 * 61.0 / 2) << ranks;
    }
  }
}

TEST(RowBalance, GivesEveryRankAsManyRows) {
  const std::vector<double> costs{1, 9, 1, 1, 8, 1, 1, 2};
  // 9 | 8; then 2 to the second; then 1s: first, second, ... as the sums say
  const auto row_at = balance_rows(costs, 2, 2);
  EXPECT_THAT(row_at, ElementsAre(1, 0, 4, 7, 2, 5, 3, 6));
  EXPECT_THAT([&] { balance_rows(costs, 3, 1); },
              ThrowsMessage<Error>(HasSubstr("8 rows for 3 ranks")));
}

TEST_F(Loaders, EverySampleOnceAnEpochWithItsPlaceAsIndex) {
  const auto data = dataset(50, {}, 2);
  const CountingProcessor processor;
  Loader loader(data, processor, {.max_length = 64, .lookahead = 16}, 1, {.global_batch = 1});
  std::vector<std::set<uint64_t>> epochs(3);
  std::vector<std::set<int32_t>> records(3);
  const StreamOrder order(data.shares(), 1, true);
  while (epochs[2].empty()) {
    const auto batch = loader.next_step();
    int64_t tokens = 0;
    for (const auto& sample : batch.micro_batches[0].rows[0].samples) {
      const auto epoch = sample.index / 100;
      ASSERT_TRUE(epochs[epoch].insert(sample.index).second);
      records[epoch].insert(sample.tokens[0]);
      const auto ref =
          order.at(static_cast<int64_t>(epoch), static_cast<int64_t>(sample.index % 100));
      ASSERT_EQ(sample.tokens[0], ref.source * 50 + ref.record);
      tokens += static_cast<int64_t>(sample.tokens.size());
    }
    EXPECT_LE(tokens, 64);
    EXPECT_EQ(batch.local.tokens, tokens);
    EXPECT_EQ(batch.local, batch.planned);
  }
  EXPECT_EQ(epochs[0].size(), 100);
  EXPECT_EQ(records[1].size(), 100);
}

TEST_F(Loaders, ResumesExactlyAtAnyStepOnAnyNumberOfRanks) {
  const auto data = dataset(60, {{7, "bad"}});
  const LoaderOptions options{
      .max_length = 100, .on_bad_sample = OnBadSample::kSkip, .workers = 2, .lookahead = 16};
  constexpr int64_t kSteps = 9;
  const auto whole = global_steps(data, options, 1, 2, kSteps);
  const CountingProcessor processor;
  Loader loader(data, processor, options, 5, {0, 2, 12, 2});
  for (size_t step = 0; step + 3 <= kSteps; ++step) {
    const auto text = dump_json(loader.state().to_json());
    const auto state = StreamState::from_json(parse_json(text, "state.json"), "state.json");
    EXPECT_EQ(state.rows, static_cast<int64_t>(step) * 12);
    for (const int64_t ranks : {1, 3}) {
      const auto rest = global_steps(data, options, ranks, 1, 3, state);
      for (size_t i = 0; i < 3; ++i) EXPECT_EQ(rest[i], whole[step + i]) << step << "+" << i;
    }
    loader.next_step();
  }
}

TEST_F(Loaders, StateBelongsToItsSeedAndData) {
  const auto data = dataset(20);
  const CountingProcessor processor;
  Loader loader(data, processor, {}, 5, {});
  loader.next_step();
  EXPECT_THAT([&] { Loader(data, processor, {}, 6, {}, loader.state()); },
              ThrowsMessage<DataError>(HasSubstr("seed 5, the run has 6")));
  const auto state = loader.state();
  const auto more = dataset(21);
  EXPECT_THAT([&] { Loader(more, processor, {}, 5, {}, state); },
              ThrowsMessage<DataError>(HasSubstr("has 21 samples of 0.jsonl, at the checkpoint it "
                                                 "had 20")));
}

TEST_F(Loaders, LayoutMustDivide) {
  const auto data = dataset(5);
  const CountingProcessor processor;
  EXPECT_THAT([&] { Loader(data, processor, {}, 0, {0, 2, 6, 2}); },
              ThrowsMessage<UsageError>("train: global_batch (6) must be a multiple of micro_batch "
                                        "(2) x data-parallel ranks (2) = 4"));
}

TEST_F(Loaders, StopNamesTheSampleInItsStepAndAgain) {
  const auto data = dataset(30, {{20, "bad"}});
  const CountingProcessor processor;
  Loader loader(data, processor, {.packing = false, .shuffle = false}, 0, {.global_batch = 8});
  for (int i = 0; i < 2; ++i) loader.next_step();
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT([&] { loader.next_step(); }, ThrowsMessage<DataError>("0.jsonl:21: bad sample"));
  }
  EXPECT_EQ(loader.state().rows, 16);
}

TEST_F(Loaders, TheFirstFailingSampleOfAStepIsNamedWhicheverThreadWasFirst) {
  const auto data = dataset(30, {{9, "corrupt"}, {12, "corrupt"}, {15, "corrupt"}});
  CountingProcessor processor;
  processor.delay_us = 200;
  for (int repeat = 0; repeat < 5; ++repeat) {
    Loader loader(data, processor, {.packing = false, .shuffle = false, .workers = 4}, 0,
                  {.global_batch = 8});
    loader.next_step();
    EXPECT_THAT([&] { loader.next_step(); }, ThrowsMessage<DataError>("0.jsonl:10: corrupt"));
  }
}

TEST_F(Loaders, OtherFailuresSurfaceEvenWhenSkipping) {
  const auto data = dataset(30, {{9, "broken"}});
  const CountingProcessor processor;
  Loader loader(data, processor,
                {.packing = false, .shuffle = false, .on_bad_sample = OnBadSample::kSkip}, 0,
                {.global_batch = 8});
  loader.next_step();
  EXPECT_THAT([&] { loader.next_step(); }, ThrowsMessage<Error>("0.jsonl:10: broken"));
}

TEST_F(Loaders, SkippingLeavesOutOrBlanksAndReports) {
  const auto data = dataset(16, {{2, "bad"}, {5, "corrupt"}});
  const CountingProcessor processor;
  Loader loader(data, processor,
                {.packing = false, .shuffle = false, .on_bad_sample = OnBadSample::kSkip}, 0,
                {.global_batch = 5});
  const auto batch = loader.next_step();
  std::vector<int32_t> got;
  for (const auto& micro_batch : batch.micro_batches) {
    const auto& sample = micro_batch.rows[0].samples[0];
    got.push_back(sample.tokens[0]);
    const bool blank = sample.tokens[0] == 5;
    EXPECT_EQ(sample.labels.back() == kIgnoreLabel, blank);
  }
  EXPECT_THAT(got, ElementsAre(0, 1, 3, 4, 5));
  EXPECT_LT(batch.local.labels, batch.planned.labels);
  EXPECT_EQ(batch.local.tokens, batch.planned.tokens);
  for (int i = 0; i < 8; ++i) loader.next_step();  // over epochs, each is counted once
  const auto report = loader.skipped();
  EXPECT_EQ(report.bad, 1);
  EXPECT_EQ(report.corrupt, 1);
  EXPECT_THAT(report.messages, ElementsAre("0.jsonl:3: bad sample", "0.jsonl:6: corrupt"));
}

TEST_F(Loaders, AllBadIsAnErrorNotALoop) {
  const auto data = dataset(2, {{0, "bad"}, {1, "bad"}});
  const CountingProcessor processor;
  Loader loader(data, processor, {.on_bad_sample = OnBadSample::kSkip}, 0, {});
  EXPECT_THAT([&] { loader.next_step(); }, ThrowsMessage<DataError>(HasSubstr("none of the 2")));
}

TEST_F(Loaders, TooLongIsBad) {
  const auto data = dataset(10);
  const CountingProcessor processor;
  Loader loader(data, processor, {.max_length = 1}, 0, {});
  EXPECT_THAT([&] { loader.next_step(); },
              ThrowsMessage<DataError>(HasSubstr("allowed are 1 to data.max_length = 1")));
}

TEST_F(Loaders, EpochsBecomeSteps) {
  const auto data = dataset(50, {{4, "bad"}});
  const CountingProcessor processor;
  const LoaderOptions skip{.max_length = 100, .on_bad_sample = OnBadSample::kSkip};
  for (const int64_t epochs : {1, 3}) {
    Loader counting(data, processor, skip, 3, {.global_batch = 4});
    const auto steps = counting.steps_of_epochs(epochs);
    Loader loader(data, processor, skip, 3, {.global_batch = 4});
    std::set<uint64_t> seen;
    for (int64_t s = 0; s < steps; ++s) {
      EXPECT_LT(seen.size(), 49 * epochs) << "a step too many";
      const auto batch = loader.next_step();
      for (const auto& row : rows_of(batch)) {
        for (const auto index : row) {
          if (index < static_cast<uint64_t>(50 * epochs)) seen.insert(index);
        }
      }
    }
    EXPECT_EQ(seen.size(), 49 * epochs);
  }
  const auto good = dataset(50);
  Loader plain(good, processor, {.packing = false}, 3, {.global_batch = 4});
  const auto before = processor.measured.load();
  EXPECT_EQ(plain.steps_of_epochs(3), 38);  // 150 / 4
  EXPECT_EQ(processor.measured, before);    // needs no lengths
}

TEST_F(Loaders, MemoryAheadIsBounded) {
  const auto data = dataset(200);
  CountingProcessor processor;
  processor.bytes_per_sample = 1000;
  Loader loader(data, processor,
                {.packing = false, .workers = 2, .memory_bytes = 20'000, .steps_ahead = 1000}, 0,
                {.global_batch = 4});
  loader.start();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_GT(processor.made, 4);
  EXPECT_LE(processor.made, 20);
  for (int i = 0; i < 30; ++i) loader.next_step();
  // A step larger than the bound still comes.
  Loader tight(data, processor, {.packing = false, .memory_bytes = 10}, 0, {.global_batch = 8});
  for (int i = 0; i < 5; ++i) EXPECT_EQ(tight.next_step().local.rows, 8);
}

TEST_F(Loaders, DecodesInSeveralThreadsAndKeepsTheOrder) {
  const auto data = dataset(100);
  CountingProcessor processor;
  processor.delay_us = 300;
  Loader loader(data, processor, {.packing = false, .shuffle = false, .workers = 4}, 0,
                {.global_batch = 10});
  for (int32_t step = 0; step < 10; ++step) {
    const auto batch = loader.next_step();
    for (int32_t i = 0; i < 10; ++i) {
      EXPECT_EQ(batch.micro_batches[static_cast<size_t>(i)].rows[0].samples[0].tokens[0],
                step * 10 + i);
    }
    EXPECT_GE(batch.wait_s, 0.0);
  }
  EXPECT_GT(processor.most_at_once, 1);
}

TEST_F(Loaders, EndsCleanlyAtAnyMoment) {
  const auto data = dataset(300);
  CountingProcessor processor;
  processor.delay_us = 50;
  for (int i = 0; i < 20; ++i) {
    Loader loader(data, processor, {.workers = 3, .memory_bytes = 4000}, 0, {.global_batch = 4});
    if (i % 4 == 0) continue;
    loader.start();
    std::this_thread::sleep_for(std::chrono::microseconds(100 * i));
    if (i % 4 == 1) loader.next_step();
  }
}

TEST_F(Loaders, OnePassGivesEveryRankAsManyRows) {
  const auto data = dataset(11);
  const CountingProcessor processor;
  const LoaderOptions options{.packing = false, .shuffle = false, .one_pass = true};
  std::multiset<int32_t> seen;
  std::vector<int64_t> shapes;
  for (int64_t rank = 0; rank < 3; ++rank) {
    Loader loader(data, processor, options, 0, {rank, 3, 6, 2});
    int64_t rows = 0;
    while (const auto batch = loader.next()) {
      for (const auto& micro_batch : batch->micro_batches) {
        for (const auto& row : micro_batch.rows) {
          ++rows;
          const auto& sample = row.samples.front();
          const bool filler = sample.labels.back() == kIgnoreLabel;
          if (!filler) seen.insert(sample.tokens.front());
        }
      }
    }
    shapes.push_back(rows);
  }
  EXPECT_THAT(shapes, ElementsAre(4, 4, 4));
  EXPECT_THAT(seen, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
}

}  // namespace
}  // namespace triptych
