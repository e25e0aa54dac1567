// Every parallel technique and the combinations of them against one process, on two tiny models
// with packed mixed samples. A new technique is a row of equality_table.cpp.

#include <gmock/gmock.h>

#include <algorithm>
#include <cstdio>

#include "equality_rows.h"
#include "ranks.h"

namespace triptych {

static void PrintTo(const EqualityRow& row, std::ostream* out) { *out << row.name; }

namespace {

/// A row and whether it is run in bf16 as well.
struct Run {
  EqualityRow row;
  bool bf16 = true;
};
void PrintTo(const Run& run, std::ostream* out) { *out << run.row.name; }

class Equality : public testing::TestWithParam<Run> {
 protected:
  static void SetUpTestSuite() {
    std::printf(
        "| model | layout | ranks | loss | norm | gradient | bf16 | one bf16 process |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n");
  }
};

TEST_P(Equality, TrainsWhatOneProcessTrains) {
  const auto& [row, with_bf16] = GetParam();
  const auto& exact = train_alone(row, false);
  const auto error = compare(train_row(row, false), exact);
  std::printf("| %s | %s | %d | %.1e | %.1e | %.1e |",
              row.model == TinyModel::kQwen ? "Qwen2.5-VL" : "video", row.name.c_str(),
              row.processes, error.loss, error.norm, error.gradient);
  EXPECT_LE(error.loss, row.tolerance);
  EXPECT_LE(error.norm, row.tolerance);
  EXPECT_LE(error.gradient, row.tolerance) << error.worst;
  if (!with_bf16) {
    std::printf(" | |\n");
    return;
  }
  // bf16: against the fp32 run of one process, no layout may be further off than 1.5 times the bf16
  // run of one process: it rounds the same products, in another order. Over all gradients: in a
  // single small one, chance decides by more.
  const auto one = compare(train_alone(row, true), exact);
  const auto bf16 = compare(train_row(row, true), exact);
  std::printf(" %.2e | %.2e |\n", bf16.all_gradients, one.all_gradients);
  EXPECT_LE(bf16.all_gradients, 1.5 * one.all_gradients);
  EXPECT_LE(bf16.loss, 0.02);
}

std::vector<Run> covering() {
  std::vector<Run> runs;
  // bf16 in some of them: it takes as long again, and the whole table has it in every row
  for (const auto& row : covering_rows()) runs.push_back({row, runs.size() % 10 == 0});
  return runs;
}

/// All rows, each once.
std::vector<Run> full() {
  std::vector<Run> runs;
  for (const auto* rows : {&covering_rows(), &further_rows()}) {
    for (const auto& row : *rows) {
      if (std::none_of(runs.begin(), runs.end(), [&](const auto& run) {
            return run.row.name == row.name && run.row.model == row.model;
          }))
        runs.push_back({row, true});
    }
  }
  return runs;
}

std::string test_name(const testing::TestParamInfo<Run>& info) {
  std::string name = info.param.row.model == TinyModel::kQwen ? "Qwen" : "Video";
  for (const char c : info.param.row.name)
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) name += c;
  return name;
}

INSTANTIATE_TEST_SUITE_P(Covering, Equality, testing::ValuesIn(covering()), test_name);
INSTANTIATE_TEST_SUITE_P(Full, Equality, testing::ValuesIn(full()), test_name);

class Table : public testing::TestWithParam<TinyModel> {};

TEST_P(Table, HasEveryPairOfTechniquesInItsCoveringRows) {
  std::string missing;
  for (const auto& [a, b] : missing_pairs(GetParam())) missing += "\n  " + a + " x " + b;
  EXPECT_EQ(missing, "");
  EXPECT_GE(count_pairs(GetParam()), 80U);  // the count itself is not empty
}

TEST_P(Table, HasEachTechniqueAloneOnTwoAndOnFourRanks) {
  for (const char* technique : {"data", "tensor", "tensor with sequence", "pipeline",
                                "virtual pipeline", "zero bubble", "ulysses", "ring", "hybrid"}) {
    std::set<int> ranks;
    for (const auto& run : full()) {
      auto of = techniques(run.row);
      of.erase("ZeRO-1");
      of.erase("dsp");
      if (run.row.model == GetParam() && of == std::set<std::string>{technique})
        ranks.insert(run.row.processes);
    }
    if (technique != std::string("hybrid")) EXPECT_TRUE(ranks.contains(2)) << technique;
    EXPECT_TRUE(ranks.contains(4)) << technique;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Table, testing::Values(TinyModel::kQwen, TinyModel::kVideo));

// What the comparison is worth: each of these is a mistake that people have made.
class Mistakes : public testing::TestWithParam<EqualityRow> {};

TEST_P(Mistakes, AreFound) {
  const auto& row = GetParam();
  std::string found;
  try {
    const auto error = compare(train_row(row, false), train_alone(row, false));
    if (error.loss > 1e-3 || error.norm > 1e-3 || error.gradient > 1e-3) found = "another result";
  } catch (const std::exception& difference) {
    found = difference.what();
  }
  EXPECT_THAT(found, testing::AnyOf(testing::Eq("another result"),
                                    testing::HasSubstr("has another gradient"),
                                    testing::HasSubstr("reports another loss")));
}

EqualityRow with(const std::string& mistake, EqualityRow row) {
  row.mistake = mistake;
  return row;
}

INSTANTIATE_TEST_SUITE_P(
    Rows, Mistakes,
    testing::Values(with("no sums", layout("tensor 2, sequence")),
                    with("no sums", layout("tensor 2, lora")),
                    with("no sums", layout("tensor 2, sequence", TinyModel::kVideo)),
                    with("no copies' sums", layout("tensor 4, sequence")),
                    with("counted twice", layout("tensor 2")),
                    with("no sums of tied weights", layout("pipeline 2, tied")),
                    with("counted by each stage", layout("pipeline 2, tied"))));

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  triptych::testing_ranks::add_scenario("equality", triptych::equality_rank);
  return triptych::testing_ranks::run_main(argc, argv);
}
