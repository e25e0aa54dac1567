#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "data/packer.h"
#include "data/row_stream.h"
#include "data/stream_order.h"
#include "data/worker_pool.h"

namespace triptych {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::map<int64_t, int64_t> uses(const StreamOrder& order, int32_t source, int64_t epochs) {
  std::map<int64_t, int64_t> counts;
  for (int64_t e = 0; e < epochs; ++e) {
    for (int64_t p = 0; p < order.epoch_length(); ++p) {
      const auto ref = order.at(e, p);
      if (ref.source == source) ++counts[ref.record];
    }
  }
  return counts;
}

TEST(StreamOrder, WithoutShufflingFilesKeepTheirOrder) {
  const StreamOrder order({{3}, {2}}, 1, false);
  std::vector<std::pair<int32_t, int64_t>> seen;
  for (int64_t p = 0; p < order.epoch_length(); ++p) {
    const auto ref = order.at(5, p);
    seen.emplace_back(ref.source, ref.record);
  }
  EXPECT_THAT(seen, ElementsAre(std::pair(0, 0), std::pair(0, 1), std::pair(0, 2), std::pair(1, 0),
                                std::pair(1, 1)));
}

TEST(StreamOrder, EveryRecordOnceAnEpochInANewOrder) {
  for (const int64_t records : {1, 2, 7, 100, 1000}) {
    const StreamOrder order({{records}, {records + 3}}, 42, true);
    std::vector<std::vector<int64_t>> epochs(2);
    for (int64_t e = 0; e < 2; ++e) {
      std::set<std::pair<int32_t, int64_t>> seen;
      for (int64_t p = 0; p < order.epoch_length(); ++p) {
        const auto ref = order.at(e, p);
        seen.emplace(ref.source, ref.record);
        epochs[e].push_back(ref.source * 10000 + ref.record);
      }
      EXPECT_EQ(seen.size(), 2 * records + 3);
    }
    if (records > 2) {
      EXPECT_NE(epochs[0], epochs[1]);
    }
  }
}

TEST(StreamOrder, DependsOnTheSeedAlone) {
  const StreamOrder a({{500}}, 1, true), b({{500}}, 1, true), c({{500}}, 2, true);
  int64_t same_ab = 0, same_ac = 0;
  for (int64_t p = 0; p < 500; ++p) {
    same_ab += a.at(3, p) == b.at(3, p);
    same_ac += a.at(3, p) == c.at(3, p);
  }
  EXPECT_EQ(same_ab, 500);
  EXPECT_LT(same_ac, 20);
}

TEST(StreamOrder, WeightsAreShares) {
  // 3 : 1 of 400 samples, though the sources have 100 and 300 records.
  const StreamOrder order({{100, 3.0}, {300, 1.0}}, 7, true);
  EXPECT_EQ(order.epoch_length(), 400);
  EXPECT_EQ(order.epoch_share(0), 300);
  EXPECT_EQ(order.epoch_share(1), 100);
  for (const auto& [record, count] : uses(order, 0, 1)) EXPECT_EQ(count, 3) << record;
  // Three epochs go once through the second source: no record twice before all others.
  const auto second = uses(order, 1, 3);
  EXPECT_EQ(second.size(), 300);
  for (const auto& [record, count] : second) EXPECT_EQ(count, 1) << record;
}

TEST(StreamOrder, RepeatIsPassesAnEpoch) {
  const StreamOrder order({{10, 1.0, 3.0}, {10, 1.0, 0.5}}, 7, true);
  EXPECT_EQ(order.epoch_share(0), 30);
  EXPECT_EQ(order.epoch_share(1), 5);
  EXPECT_EQ(uses(order, 1, 2).size(), 10);
}

TEST(StreamOrder, SharesAddUp) {
  for (uint64_t i = 0; i < 200; ++i) {
    const RandomKey key{i, RandomStream::kSampling};
    std::vector<SourceShare> sources;
    for (uint64_t s = 0; s < 1 + i % 5; ++s) {
      sources.push_back({1 + static_cast<int64_t>(uniform(key, 3 * s) * 50),
                         0.1 + uniform(key, 3 * s + 1), 0.2 + uniform(key, 3 * s + 2)});
    }
    const StreamOrder order(sources, i, true);
    int64_t total = 0;
    for (size_t s = 0; s < sources.size(); ++s) total += order.epoch_share(static_cast<int32_t>(s));
    EXPECT_EQ(total, order.epoch_length());
    for (int64_t p = 0; p < order.epoch_length(); ++p) {
      const auto ref = order.at(1, p);
      ASSERT_LT(ref.record, sources[static_cast<size_t>(ref.source)].records);
    }
  }
}

TEST(StreamOrder, RefusesEmptyAndNegative) {
  EXPECT_THROW(StreamOrder({}, 0, true), UsageError);
  EXPECT_THAT([] { StreamOrder({{0}}, 0, true); },
              ThrowsMessage<UsageError>(HasSubstr("no record")));
  EXPECT_THAT([] { StreamOrder({{1, -1.0}}, 0, true); },
              ThrowsMessage<UsageError>(HasSubstr("weight -1")));
}

TEST(Packer, OldestFirstThenTheLongestThatFits) {
  Packer packer(10, 5);
  for (int64_t i = 0; const int32_t length : {4, 9, 3, 6, 6}) packer.add({i++, length});
  EXPECT_FALSE(packer.wants_more());
  EXPECT_THAT(packer.next_row(), ElementsAre(PackItem{0, 4}, PackItem{3, 6}));
  EXPECT_THAT(packer.next_row(), ElementsAre(PackItem{1, 9}));
  EXPECT_THAT(packer.next_row(), ElementsAre(PackItem{2, 3}, PackItem{4, 6}));
  EXPECT_TRUE(packer.empty());
}

TEST(Packer, RefusesWhatCannotFit) {
  Packer packer(10, 5);
  EXPECT_THAT([&] { packer.add({0, 11}); }, ThrowsMessage<Error>(HasSubstr("11 tokens")));
}

/// Random lengths, some samples bad.
std::optional<int32_t> length_of(uint64_t seed, int64_t epoch, int64_t position) {
  const RandomKey key{seed, RandomStream::kSampling};
  const auto x = uniform(key, static_cast<uint64_t>(position), static_cast<uint64_t>(epoch));
  if (x < 0.1) return std::nullopt;
  return 1 + static_cast<int32_t>(x * x * 99);
}

TEST(RowStream, LosesAndRepeatsNothingAndNeverExceeds) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const int64_t length = 1 + static_cast<int64_t>(seed * 7);
    const RowStreamOptions options{.max_length = 100,
                                   .lookahead = 1 + static_cast<int64_t>(seed % 17)};
    const auto one = [&](int64_t epoch, int64_t position) {
      return length_of(seed, epoch, position).value_or(5);  // none bad: tiny epochs stay usable
    };
    RowStream stream(length, options, one);
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
      std::set<int64_t> seen;
      while (static_cast<int64_t>(seen.size()) < length) {
        const auto row = stream.next();
        ASSERT_EQ(row->epoch, epoch);  // no row crosses epochs
        int64_t tokens = 0;
        for (const auto& item : row->items) {
          tokens += item.length;
          ASSERT_TRUE(seen.insert(item.position).second) << "sample twice";
          ASSERT_EQ(item.length, one(epoch, item.position));
        }
        ASSERT_LE(tokens, 100);
        if (options.lookahead == 1) {
          ASSERT_EQ(row->items.size(), 1);
        }
      }
    }
  }
}

TEST(RowStream, ContinuesExactlyFromAnyState) {
  const auto lengths = [](int64_t e, int64_t p) { return length_of(9, e, p); };
  const RowStreamOptions options{.max_length = 100, .lookahead = 16};
  RowStream whole(83, options, lengths);
  for (int i = 0; i < 120; ++i) {
    const auto text = dump_json(whole.state().to_json());
    const auto state = StreamState::from_json(parse_json(text, "state"), "state");
    EXPECT_EQ(state, whole.state());
    EXPECT_EQ(state.rows, i);
    RowStream resumed(83, options, lengths, state);
    const auto want = whole.next();
    RowStream ahead(83, options, lengths, whole.state());
    for (int k = 0; k < 3; ++k) {
      const auto got = resumed.next();
      const auto expected = k == 0 ? want : ahead.next();
      ASSERT_EQ(got->epoch, expected->epoch);
      ASSERT_EQ(got->items, expected->items);
    }
  }
}

TEST(RowStream, OnePassEnds) {
  const auto lengths = [](int64_t e, int64_t p) { return length_of(3, e, p); };
  RowStream stream(50, {.max_length = 100, .lookahead = 8, .one_pass = true}, lengths);
  std::set<int64_t> seen;
  while (const auto row = stream.next()) {
    for (const auto& item : row->items) EXPECT_TRUE(seen.insert(item.position).second);
  }
  for (int64_t p = 0; p < 50; ++p) EXPECT_EQ(seen.contains(p), lengths(0, p).has_value());
  EXPECT_FALSE(stream.next());
}

TEST(RowStream, AnEpochWithoutSamplesIsAnError) {
  RowStream stream(3, {}, [](int64_t, int64_t) { return std::optional<int32_t>(); });
  EXPECT_THAT([&] { stream.next(); }, ThrowsMessage<DataError>(HasSubstr("none of the 3 samples")));
}

TEST(RowStream, StateNamesTheWrongField) {
  auto json = StreamState{}.to_json();
  json["position"] = -4;
  EXPECT_THAT([&] { StreamState::from_json(json, "state.json"); },
              ThrowsMessage<DataError>("state.json: position: found -4; expected a whole number "
                                       "from 0"));
  json.erase("position");
  EXPECT_THAT([&] { StreamState::from_json(json, "state.json"); },
              ThrowsMessage<DataError>("state.json: 'position' is missing"));
}

TEST(Packer, FillsRowsWell) {
  RowStream stream(20000, {.max_length = 4096, .lookahead = 256, .one_pass = true},
                   [](int64_t, int64_t p) {
                     const auto x = uniform({1, RandomStream::kSampling}, static_cast<uint64_t>(p));
                     return std::optional<int32_t>(50 + static_cast<int32_t>(x * x * x * 4000));
                   });
  int64_t rows = 0, tokens = 0;
  while (const auto row = stream.next()) {
    ++rows;
    for (const auto& item : row->items) tokens += item.length;
  }
  EXPECT_GT(static_cast<double>(tokens) / static_cast<double>(rows * 4096), 0.99);
}

TEST(WorkerPool, RunsEverythingAndUrgentFirst) {
  std::vector<int> order;
  {
    WorkerPool pool(1);
    std::mutex gate;
    gate.lock();
    pool.submit([&] { const std::lock_guard wait(gate); });
    for (int i = 0; i < 3; ++i) pool.submit([&order, i] { order.push_back(i); });
    pool.submit([&order] { order.push_back(10); }, WorkerPool::Urgency::kUrgent);
    gate.unlock();
  }
  ASSERT_EQ(order.size(), 4);
  WorkerPool pool(3);
  std::vector<int> squares(1000);
  pool.for_each(1000,
                [&](int64_t i) { squares[static_cast<size_t>(i)] = static_cast<int>(i * i); });
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(squares[static_cast<size_t>(i)], i * i);
}

}  // namespace
}  // namespace triptych
