#include "parallel/stage_cut.h"

#include <gmock/gmock.h>

namespace triptych {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Lists = std::vector<std::vector<int64_t>>;

/// patch embedding, vision blocks, projector, embedding, text blocks, head.
std::vector<CutLayer> layers(int64_t vision, int64_t text, double vision_cost = 1) {
  std::vector<CutLayer> list{{"vision", false, 0.1}};
  for (int64_t i = 0; i < vision; ++i) list.push_back({"vision", true, vision_cost});
  list.push_back({"projector", false, 0.1});
  list.push_back({"text", false, 0});
  for (int64_t i = 0; i < text; ++i) list.push_back({"text", true, 1});
  list.push_back({"text", false, 0.5});
  return list;
}

std::vector<PartSplit> splits(LayerSplit vision, LayerSplit text) {
  return {{"vision", "parallel.vision_layers", std::move(vision)},
          {"text", "parallel.text_layers", std::move(text)}};
}

StageCut cut(const std::vector<CutLayer>& list, PipelineShape shape,
             const std::vector<PartSplit>& of = splits(Auto::kAuto, Auto::kAuto)) {
  Problems problems;
  const auto result = cut_layers(list, shape, of, problems);
  EXPECT_TRUE(problems.empty()) << testing::PrintToString(problems.messages());
  return result;
}

std::vector<std::string> problems_of(const std::vector<CutLayer>& list, PipelineShape shape,
                                     const std::vector<PartSplit>& of) {
  Problems problems;
  cut_layers(list, shape, of, problems);
  return problems.messages();
}

TEST(StageCut, ListsOfAStageEach) {
  // The embedding and the projector stand with the first text layer, the head on the last stage.
  const auto list = layers(3, 4);  // 0 | 1 2 3 | 4 5 | 6 7 8 9 | 10
  EXPECT_THAT(cut(list, {2}, splits(std::vector<int64_t>{3, 0}, std::vector<int64_t>{1, 3})).bounds,
              ElementsAre(0, 7, 11));
  EXPECT_THAT(cut(list, {2}, splits(std::vector<int64_t>{3, 0}, std::vector<int64_t>{0, 4})).bounds,
              ElementsAre(0, 4, 11));
  EXPECT_THAT(
      cut(list, {3}, splits(std::vector<int64_t>{1, 2, 0}, std::vector<int64_t>{0, 4, 0})).bounds,
      ElementsAre(0, 2, 10, 11));
}

TEST(StageCut, ListsOfAChunkEach) {
  // InternVL2-8B on 4 stages with 3 chunks, as older suites write it.
  const auto result = cut(layers(24, 32), {4, 3, 8},
                          splits(Lists{{6, 7, 7, 4}, {0, 0, 0, 0}, {0, 0, 0, 0}},
                                 Lists{{0, 0, 0, 1}, {4, 4, 4, 4}, {4, 4, 4, 3}}));
  EXPECT_THAT(result.bounds, ElementsAre(0, 7, 14, 21, 28, 32, 36, 40, 44, 48, 52, 56, 60));
  EXPECT_EQ(result.range(1, 2), (LayerRange{48, 52}));
  EXPECT_EQ(result.stage_of(47), 8);
  EXPECT_TRUE(result.holds(0, 47));
  EXPECT_FALSE(result.holds(1, 47));
}

TEST(StageCut, AutoBalancesCosts) {
  // A vision block of 0.25: 8 of them weigh what 2 text blocks do.
  const auto result = cut(layers(8, 6, 0.25), {4, 1, 4});
  // total 0.1 + 2 + 0.1 + 6 + 0.5 = 8.7: stages of about 2.2
  EXPECT_THAT(result.bounds, ElementsAre(0, 9, 13, 15, 18));
  // Counts of one part fix it, the other part is balanced around them.
  const auto fixed =
      cut(layers(8, 6, 0.25), {2, 1, 4}, splits(Auto::kAuto, std::vector<int64_t>{1, 5}));
  EXPECT_THAT(fixed.bounds, ElementsAre(0, 12, 18));
}

TEST(StageCut, RulesAreReportedTogetherWithTheirArithmetic) {
  EXPECT_THAT(
      problems_of(layers(3, 28), {2, 1, 4},
                  splits(std::vector<int64_t>{3}, std::vector<int64_t>{13, 14})),
      ElementsAre(HasSubstr("parallel.vision_layers must be a list of 2 "
                            "(parallel.pipeline = 2, parallel.virtual = 1), got a list of 1"),
                  HasSubstr("parallel.text_layers sums to 27, the model has 28")));
  EXPECT_THAT(problems_of(layers(3, 4), {2, 2, 4}, splits(Auto::kAuto, std::vector<int64_t>{2, 2})),
              ElementsAre(HasSubstr("parallel.text_layers must be 2 lists of 2")));
  EXPECT_THAT(
      problems_of(layers(3, 4), {2, 1, 4},
                  splits(std::vector<int64_t>{1, 2}, std::vector<int64_t>{2, 2})),
      ElementsAre(HasSubstr("parallel.vision_layers puts 2 layers on stage 1, behind the 2 that "
                            "parallel.text_layers puts on stage 0")));
  EXPECT_THAT(problems_of(layers(2, 4), {3, 1, 4},
                          splits(std::vector<int64_t>{2, 0, 0}, std::vector<int64_t>{4, 0, 0})),
              ElementsAre(HasSubstr("stage 1 holds no layer, embedding or head")));
}

}  // namespace
}  // namespace triptych
