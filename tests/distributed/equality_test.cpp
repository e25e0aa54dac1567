// Every parallel technique and the combinations of them against one process, on a tiny Qwen2.5-VL
// with packed mixed samples. A new technique is a row.

#include "equality.h"

#include <gtest/gtest.h>

#include <cstdio>

#include "base/format.h"
#include "ranks.h"

namespace triptych {
namespace {

const std::vector<EqualityRow>& rows() {
  static const std::vector<EqualityRow> all = {
      {"data 2", 2, {}},
      {"data 2, zero 0", 2, {"parallel.zero=0"}},
      {"tensor 2", 2, {"parallel.tensor=2"}},
      {"tensor 2, sequence", 2, {"parallel.tensor=2", "parallel.sequence=true"}},
      {"tensor 4", 4, {"parallel.tensor=4"}},  // two ranks a key/value head
      {"tensor 4, sequence", 4, {"parallel.tensor=4", "parallel.sequence=true"}},
  };
  return all;
}

class Equality : public testing::TestWithParam<EqualityRow> {
 protected:
  static void SetUpTestSuite() {
    std::printf("\n%-44s %2s  %9s %9s %9s  %9s %9s  %s\n", "layout", "n", "loss", "norm",
                "gradient", "bf16", "one bf16", "worst gradient");
  }
};

TEST_P(Equality, TrainsWhatOneProcessTrains) {
  const auto& row = GetParam();
  const auto& exact = train_alone(row, false);
  const auto error = compare(train_row(row, false), exact);

  // bf16: against the fp32 run of one process, no layout may be further off than 1.5 times the bf16
  // run of one process. Over all gradients: in a single small one, chance decides by more.
  const auto one = compare(train_alone(row, true), exact);
  const auto bf16 = compare(train_row(row, true), exact);

  std::printf("%-44s %2d  %9.1e %9.1e %9.1e  %9.1e %9.1e  %s\n", row.name.c_str(), row.processes,
              error.loss, error.norm, error.gradient, bf16.all_gradients, one.all_gradients,
              error.worst.c_str());
  EXPECT_LE(error.loss, row.tolerance);
  EXPECT_LE(error.norm, row.tolerance);
  EXPECT_LE(error.gradient, row.tolerance) << error.worst;
  EXPECT_LE(bf16.all_gradients, 1.5 * one.all_gradients);
  EXPECT_LE(bf16.loss, 0.02);
}

INSTANTIATE_TEST_SUITE_P(Rows, Equality, testing::ValuesIn(rows()), [](const auto& info) {
  std::string name;
  for (const char c : info.param.name)
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) name += c;
  return name;
});

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  triptych::testing_ranks::add_scenario("equality", triptych::equality_rank);
  return triptych::testing_ranks::run_main(argc, argv);
}
