#include "checkpoint/optimizer_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/error.h"
#include "checkpoint/checkpoint_folder.h"
#include "checkpoint/optimizer_index.h"
#include "save_for_test.h"
#include "support/scratch.h"

namespace triptych {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

/// Saves one state of one parameter, each piece by a rank of its own.
void save_pieces(const Scratch& scratch, const std::vector<std::vector<OptimizerPiece>>& by_rank) {
  const int world = static_cast<int>(by_rank.size());
  ThreadAgreement agreement(world);
  std::vector<std::thread> ranks;
  std::vector<std::exception_ptr> errors(world);
  for (int rank = 0; rank < world; ++rank) {
    ranks.emplace_back([&, rank] {
      try {
        CheckpointWriter writer({.output = scratch.path(), .async = false}, rank, world,
                                std::ref(agreement));
        writer.save(1,
                    {.layout = make_layout({{"w", at::kFloat, {2}}}),
                     .provider = [](const std::string&) { return at::ones({2}); }},
                    by_rank[rank], Json::object());
      } catch (...) {
        errors[rank] = std::current_exception();
      }
    });
  }
  for (auto& rank : ranks) rank.join();
  for (const auto& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

OptimizerStateReader reader(const Scratch& scratch) {
  return OptimizerStateReader(
      open_checkpoint(scratch / "checkpoints/step_00000001", true).optimizer());
}

/// Part i of n of `x`: of its flattened elements, or of dim `dim`.
OptimizerPiece part_of(const at::Tensor& x, int64_t i, int64_t n, int64_t dim) {
  OptimizerPiece piece{.parameter = "x", .kind = "master", .shape = x.sizes().vec()};
  at::Tensor values;
  if (dim < 0) {
    piece.begin = x.numel() * i / n;
    piece.end = x.numel() * (i + 1) / n;
    values = x.flatten().narrow(0, piece.begin, piece.end - piece.begin);
  } else {
    const int64_t start = x.size(dim) * i / n, length = x.size(dim) * (i + 1) / n - start;
    values = x.narrow(dim, start, length).contiguous();
    piece.end = values.numel();
    piece.slice = TensorSlice{dim, start, length};
  }
  piece.values = [values] { return values; };
  return piece;
}

struct Cut {
  int64_t ranks;
  int64_t dim;  // -1: flattened elements
};
class Resharding : public testing::TestWithParam<std::tuple<Cut, Cut>> {};

TEST_P(Resharding, AnyReaderGetsItsPart) {
  const auto& [written, wanted] = GetParam();
  const Scratch scratch;
  const auto x = at::randn({6, 7, 5});
  std::vector<std::vector<OptimizerPiece>> pieces;
  for (int64_t i = 0; i < written.ranks; ++i)
    pieces.push_back({part_of(x, i, written.ranks, written.dim)});
  save_pieces(scratch, pieces);
  const auto states = reader(scratch);
  EXPECT_EQ(states.shape("x"), x.sizes().vec());
  for (int64_t i = 0; i < wanted.ranks; ++i) {
    const auto part = part_of(x, i, wanted.ranks, wanted.dim);
    const auto got = at::full({part.end - part.begin}, -9.0);
    states.read_range("x", "master", part.begin, part.end, got, part.slice);
    EXPECT_TRUE(got.equal(part.values().flatten())) << i;
    // A part of the part, as when a slice is sharded once more.
    const int64_t third = (part.end - part.begin) / 3;
    states.read_range("x", "master", part.begin + third, part.begin + 2 * third,
                      got.narrow(0, 0, third), part.slice);
    EXPECT_TRUE(got.narrow(0, 0, third).equal(part.values().flatten().narrow(0, third, third)));
  }
}

INSTANTIATE_TEST_SUITE_P(Cuts, Resharding,
                         testing::Combine(testing::Values(Cut{1, -1}, Cut{2, -1}, Cut{3, -1},
                                                          Cut{2, 0}, Cut{3, 1}, Cut{2, 2}),
                                          testing::Values(Cut{1, -1}, Cut{2, -1}, Cut{3, -1},
                                                          Cut{3, 0}, Cut{2, 1}, Cut{5, 2})));

TEST(OptimizerState, SeveralRangesOfOneParameterOnOneRank) {
  const Scratch scratch;
  const auto x = at::randn({12});
  save_pieces(scratch, {{part_of(x, 0, 3, -1), part_of(x, 2, 3, -1)}, {part_of(x, 1, 3, -1)}});
  const auto got = at::empty({12});
  reader(scratch).read_range("x", "master", 0, 12, got);
  EXPECT_TRUE(got.equal(x));
}

TEST(OptimizerState, TellsWhatItHas) {
  const Scratch scratch;
  const SmallModel model(3);
  save_pieces(scratch, {model.pieces(0, 2), model.pieces(1, 2)});
  const auto states = reader(scratch);
  EXPECT_THAT(states.parameters(), ElementsAre("a", "b"));
  EXPECT_TRUE(states.contains("a", "exp_avg"));
  EXPECT_FALSE(states.contains("a", "momentum"));
  EXPECT_FALSE(states.contains("c", "exp_avg"));
}

TEST(OptimizerStateErrors, NameParameterAndElements) {
  const Scratch scratch;
  const auto x = at::randn({12});
  EXPECT_THAT([&] { save_pieces(scratch, {{part_of(x, 0, 3, -1), part_of(x, 2, 3, -1)}}); },
              ThrowsMessage<DataError>(
                  HasSubstr("no rank holds master of parameter 'x' from element 4 on, of 12")));
  EXPECT_TRUE(std::filesystem::is_empty(scratch / "checkpoints"));
  auto wrong = part_of(x, 0, 1, -1);
  wrong.end = 13;
  EXPECT_THAT([&] { save_pieces(scratch, {{wrong}}); },
              ThrowsMessage<Error>(HasSubstr("x.master has 12 elements")));
  save_pieces(scratch, {{part_of(x, 0, 1, -1)}});
  const auto states = reader(scratch);
  EXPECT_THAT([&] { states.read_range("y", "master", 0, 1, at::empty({1})); },
              ThrowsMessage<DataError>(HasSubstr("has no parameter 'y'")));
  EXPECT_THAT([&] { states.read_range("x", "exp_avg", 0, 1, at::empty({1})); },
              ThrowsMessage<DataError>(HasSubstr("exp_avg of parameter 'x' is not stored")));
  EXPECT_THAT([&] { states.read_range("x", "master", 5, 13, at::empty({8})); },
              ThrowsMessage<DataError>(HasSubstr("has 12 elements, asked for are [5, 13)")));
  EXPECT_THAT(
      [&] { states.read_range("x", "master", 0, 1, at::empty({1}), TensorSlice{0, 12, 1}); },
      ThrowsMessage<Error>(HasSubstr("has no such slice")));
}

TEST(OptimizerIndex, IsNotTrusted) {
  const std::string head =
      R"({"format":"triptych-optimizer","version":1,"parameters":{"x":{"shape":)";
  const std::pair<std::string, const char*> rows[] = {
      {R"({"format":"y"})", "'format' is \"y\""},
      {head + "[-1]}}}", "a number from 0 up"},
      {head + "[4611686018427387904,4]}}}", "overflows 64 bits"},
      {head + R"([2],"m":[{"file":"../a","tensor":"t","begin":0,"end":2}]}}})",
       "outside its folder"},
      {head + R"([2],"m":[{"file":"a","tensor":"t","begin":0,"end":3}]}}})",
       "the elements [0, 3) of 2"},
      {head + R"([2],"m":[{"file":"a","tensor":"t","begin":0,"end":1,"slice":[1,0,1]}]}}})",
       "the slice [1,0,1]"},
      {head + R"([2],"m":[{"file":"a","tensor":"t","begin":0,"end":0,"slice":[0,0,0]}]}}})",
       "the slice [0,0,0]"},
      {head + R"([2],"m":{}}}})", "has no list at 'm'"},
  };
  for (const auto& row : rows) {
    const auto parse = [&] { OptimizerIndex::parse(parse_json(row.first, "i.json"), "i.json"); };
    EXPECT_THAT(parse, ThrowsMessage<DataError>(HasSubstr(row.second)));
  }
}

}  // namespace
}  // namespace triptych
