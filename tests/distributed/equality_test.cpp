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

// --- recompute, offload, balance -----------------------------------------------------------------

const std::string kSelective =
    R"(recompute.policy=selective recompute.modules=["norm","qkv_rope","mlp_act"] )";
const std::string kPieces = R"(recompute.policy=selective recompute.modules=["attention","mlp"] )";
const std::string kGroups = "recompute.policy=full recompute.method=uniform recompute.layers=2 ";
const std::string kKeeping = "recompute.policy=full recompute.keep_attention=true ";
const std::string kOffload = "recompute.offload=true recompute.offload_min_bytes=1 ";
const std::string kPictures = "parallel.balance_vision=data ";
const std::string kUlysses = "parallel.context=2 ";
const std::string kFrozen = R"(model.freeze=["vision","projector"] )";

const std::vector<EqualityRow>& memory_rows() {
  static const std::vector<EqualityRow> all = {
      {"data 2, selective recompute", 2, set(kSelective)},
      {"data 2, recompute in groups, offload", 2, set(kGroups + kOffload)},
      {"tensor 2, sequence, selective recompute, offload", 2, set(kSp + kSelective + kOffload)},
      {"pipeline 2, zero bubble, selective recompute, offload", 2,
       set(kZb + kSelective + kOffload)},
      {"ring 2, recompute keeping attention", 2, set(kRing + kKeeping)},
      {"data 2, pictures over data", 2, set(kPictures)},
      {"data 4, pictures over data, recompute", 4, set(kPictures + "recompute.policy=full")},
      {"tensor 2, sequence, data 2, pictures over data", 4, set(kSp + kPictures)},
      {"ring 2, data 2, pictures over data", 4, set(kRing + kPictures)},
      {"pipeline 2, data 2, pictures over data", 4, set(kPp + kPictures)},
      {"pipeline 2 x virtual 2, data 2, pictures over data", 4, set(kVpp + kPictures)},
      {"data 2, pictures over data, lora", 2, set(kPictures + kLora)},
      {"data 2, pictures over data, frozen vision", 2, set(kPictures + kFrozen)},
      {"pipeline 2, zero bubble, data 2, pictures over data, frozen text", 4,
       set(kZb + kPictures + R"(model.freeze=["text"])")},
  };
  return all;
}

INSTANTIATE_TEST_SUITE_P(Memory, Equality, testing::ValuesIn(memory_rows()), [](const auto& info) {
  std::string name;
  for (const char c : info.param.name)
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) name += c;
  return name;
});

// Whatever the layout, keeping less for backward changes no bit of it.
struct BitsRow {
  std::string layout, memory;
  int processes = 2;
};

void PrintTo(const BitsRow& row, std::ostream* out) { *out << row.layout << row.memory; }

class SameBits : public testing::TestWithParam<BitsRow> {};

TEST_P(SameBits, WithAndWithout) {
  const auto& row = GetParam();
  static std::map<std::string, TrainedTiny> plain;
  const auto [at, fresh] = plain.try_emplace(row.layout);
  if (fresh) at->second = train_row({row.layout, row.processes, set(row.layout)}, false);
  const auto& want = at->second;
  const auto got =
      train_row({row.layout + row.memory, row.processes, set(row.layout + row.memory)}, false);
  EXPECT_EQ(got.losses, want.losses);
  EXPECT_EQ(got.norms, want.norms);
  ASSERT_EQ(got.gradients.size(), want.gradients.size());
  for (const auto& [name, gradient] : want.gradients)
    EXPECT_TRUE(got.gradients.at(name).equal(gradient)) << name;
}

std::vector<BitsRow> bits_rows() {
  std::vector<BitsRow> rows;
  for (const auto& layout : {kSp, kPp, kVpp, kZb, kRing, kUlysses, kLora, kFrozen}) {
    rows.push_back({layout, kSelective + kOffload});
    rows.push_back({layout, kGroups + kKeeping + kOffload});
  }
  for (const auto& layout : {kSp, kZb, kUlysses}) rows.push_back({layout, kPieces});
  return rows;
}

INSTANTIATE_TEST_SUITE_P(Rows, SameBits, testing::ValuesIn(bits_rows()));

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
