// Every parallel technique and the combinations of them against one process, on a tiny Qwen2.5-VL
// with packed mixed samples. A new technique is a row.

#include "equality.h"

#include <gmock/gmock.h>

#include <cstdio>
#include <sstream>

#include "base/format.h"
#include "ranks.h"

namespace triptych {

static void PrintTo(const EqualityRow& row, std::ostream* out) { *out << row.name; }

namespace {

/// Options in one string, for short rows.
std::vector<std::string> set(const std::string& words) {
  std::vector<std::string> result;
  std::istringstream in(words);
  for (std::string word; in >> word;) result.push_back(word);
  return result;
}

const std::string kSp = "parallel.tensor=2 parallel.sequence=true ";
const std::string kTp4Sp = "parallel.tensor=4 parallel.sequence=true ";
const std::string kRing = "parallel.context=2 parallel.context_algorithm=ring ";
const std::string kRing4 = "parallel.context=4 parallel.context_algorithm=ring ";
const std::string kLora =
    R"(model.lora.rank=4 model.lora.alpha=8 model.lora.dropout=0.2 )"
    R"(model.lora.targets=["q_proj","k_proj","v_proj","o_proj","up_proj","down_proj","qkv"] )";

const std::string kPp = "parallel.pipeline=2 ";
const std::string kVpp = kPp + "parallel.virtual=2 ";
const std::string kZb = kPp + "parallel.schedule=zb_h1 ";

const std::vector<EqualityRow>& rows() {
  static const std::vector<EqualityRow> all = {
      {"data 2", 2, {}},
      {"data 2, zero 0", 2, set("parallel.zero=0")},
      {"tensor 2", 2, set("parallel.tensor=2")},
      {"tensor 2, sequence", 2, set(kSp)},
      {"tensor 2, sequence, tied", 2, set(kSp + "tiny.tied=true")},
      {"tensor 2, lora", 2, set("parallel.tensor=2 " + kLora)},
      {"tensor 2, sequence, lora", 2, set(kSp + kLora)},
      {"tensor 2, sequence, frozen vision", 2, set(kSp + R"(model.freeze=["vision","projector"])")},
      {"tensor 2, sequence, recompute", 2, set(kSp + "recompute.policy=full")},
      {"tensor 4, sequence", 4, set(kTp4Sp)},  // two ranks a key/value head
      {"tensor 4, lora", 4, set("parallel.tensor=4 " + kLora)},
      {"tensor 2, data 2, one key/value head", 4, set("parallel.tensor=2 tiny.key_value_heads=1")},
      {"tensor 2, sequence, data 2, zero 0", 4, set(kSp + "parallel.zero=0")},
      {"tensor 2, sequence, data 2, other order", 4,
       set(kSp + R"(parallel.order=["data","tensor","context","pipeline"])")},
      {"ulysses 2", 2, set("parallel.context=2")},
      {"ulysses 4", 4, set("parallel.context=4")},  // two ranks a key/value head
      {"ring 2", 2, set(kRing)},
      {"ring 4", 4, set(kRing4)},
      {"hybrid 2 x 2", 4,
       set("parallel.context=4 parallel.context_algorithm=hybrid "
           "parallel.ulysses_degree=2")},
      {"ring 2, four packs a micro-batch", 2, set(kRing + "train.micro_batch=4")},
      {"ring 2, pictures", 2, set(kRing + "parallel.vision_context=pictures")},
      {"ring 4, dsp vision", 4, set(kRing4 + "parallel.vision_context=dsp")},
      {"ulysses 2, all pictures everywhere", 2,
       set("parallel.context=2 parallel.vision_context=pictures parallel.balance_vision=none")},
      {"ulysses 2, dsp vision, recompute", 2,
       set("parallel.context=2 parallel.vision_context=dsp recompute.policy=full")},
      {"ring 2, recompute", 2, set(kRing + "recompute.policy=full")},
      {"ring 2, lora", 2, set(kRing + kLora)},
      {"ulysses 2, dsp vision, lora", 2,
       set("parallel.context=2 parallel.vision_context=dsp " + kLora)},
      {"ring 2, frozen vision", 2, set(kRing + R"(model.freeze=["vision","projector"])")},
      {"ulysses 2, data 2", 4, set("parallel.context=2")},
      {"ring 2, data 2, zero 0", 4, set(kRing + "parallel.zero=0")},
      {"tensor 2, sequence, ring 2", 4, set(kSp + kRing)},
      {"tensor 2, sequence, ulysses 2, dsp vision", 4,
       set(kSp + "parallel.context=2 parallel.vision_context=dsp")},
      {"pipeline 2", 2, set(kPp)},
      {"pipeline 4", 4, set("parallel.pipeline=4")},
      {"pipeline 2, data 2", 4, set(kPp)},
      {"pipeline 2, data 2, zero 0, tied", 4, set(kPp + "parallel.zero=0 tiny.tied=true")},
      {"pipeline 2 x virtual 2", 2, set(kVpp)},
      {"pipeline 2 x virtual 2, data 2", 4, set(kVpp)},
      // every chunk of its own length, one of them empty
      {"pipeline 2 x virtual 3, lists, groups of 4", 2,
       set(kPp + "parallel.virtual=3 parallel.micro_batch_group=4 train.global_batch=8 "
                 "parallel.vision_layers=[[1,3],[0,0],[0,0]] "
                 "parallel.text_layers=[[0,1],[2,0],[1,0]]")},
      {"pipeline 2, zero bubble", 2, set(kZb)},
      {"pipeline 4, zero bubble", 4, set("parallel.pipeline=4 parallel.schedule=zb_h1")},
      {"pipeline 2, zero bubble, data 2, recompute", 4, set(kZb + "recompute.policy=full")},
      {"pipeline 2, tied", 2, set(kPp + "tiny.tied=true")},
      {"pipeline 2, data 2, tied", 4, set(kPp + "parallel.text_layers=[1,3] tiny.tied=true")},
      // first and last chunk of the second stage
      {"pipeline 2 x virtual 2, tied on one stage", 2,
       set(kVpp + "parallel.text_layers=[[0,2],[1,1]] tiny.tied=true")},
      {"pipeline 2 x virtual 2, frozen vision", 2,
       set(kVpp + R"(model.freeze=["vision","projector"])")},
      {"pipeline 2, frozen text", 2, set(kPp + R"(model.freeze=["text"])")},
      {"pipeline 2, zero bubble, lora", 2, set(kZb + kLora)},
      {"pipeline 2 x virtual 2, lora", 2, set(kVpp + kLora)},
      {"pipeline 2 x virtual 2, recompute of 1 and 2", 2,
       set(kVpp + "recompute.policy=full recompute.layers=[1,2] "
                  "parallel.vision_layers=[[2,2],[0,0]] parallel.text_layers=[[0,0],[2,2]]")},
      {"pipeline 2, tensor 2, sequence", 4, set(kPp + kSp)},
      {"pipeline 2, zero bubble, tensor 2, tied", 4, set(kZb + "parallel.tensor=2 tiny.tied=true")},
      {"pipeline 2, ring 2", 4, set(kPp + kRing)},
      {"pipeline 2 x virtual 2, ulysses 2, dsp vision", 4,
       set(kVpp + "parallel.context=2 parallel.vision_context=dsp")},
      {"pipeline 2, zero bubble, ring 2, lora", 4, set(kZb + kRing + kLora)},
      {"tensor 2, sequence, ring 2, pipeline 2", 8, set(kSp + kRing + kPp)},
      {"tensor 2, pipeline 2 x virtual 2, data 2, recompute", 8,
       set("parallel.tensor=2 recompute.policy=full " + kVpp)},
  };
  return all;
}

// ZeRO-2 and -3 and sharding inside a part of the ranks, alone and with every other technique.
const std::string kZ2 = "parallel.zero=2 ", kZ3 = "parallel.zero=3 ";

const std::vector<EqualityRow>& zero_rows() {
  static const std::vector<EqualityRow> all = {
      {"data 2, zero 2", 2, set(kZ2)},
      {"data 4, zero 2", 4, set(kZ2)},
      {"data 2, zero 2, four micro-batches, no overlap", 2,
       set(kZ2 + "train.global_batch=8 parallel.overlap=false")},
      {"data 2, zero 3", 2, set(kZ3)},
      {"data 4, zero 3", 4, set(kZ3)},
      {"data 2, zero 3, four micro-batches", 2, set(kZ3 + "train.global_batch=8")},
      {"data 2, zero 3, nothing ahead, no overlap", 2,
       set(kZ3 + "parallel.zero_prefetch=0 parallel.overlap=false")},
      {"data 2, zero 3, three ahead, kept after forward", 2,
       set(kZ3 + "parallel.zero_prefetch=3 parallel.zero_reshard=false")},
      {"data 2, zero 3, tied", 2, set(kZ3 + "tiny.tied=true")},
      {"data 2, zero 2, lora", 2, set(kZ2 + kLora)},
      {"data 2, zero 3, lora", 2, set(kZ3 + kLora)},
      {"data 2, zero 3, frozen vision", 2, set(kZ3 + R"(model.freeze=["vision","projector"])")},
      {"data 2, zero 3, frozen text", 2, set(kZ3 + R"(model.freeze=["text"])")},
      {"data 2, zero 3, recompute", 2, set(kZ3 + "recompute.policy=full")},
      {"data 2, zero 3, recompute, lora", 2, set(kZ3 + kLora + "recompute.policy=full")},
      {"data 4, zero 1 in groups of 2", 4, set("parallel.zero_group=2")},
      {"data 4, zero 2 in groups of 2", 4, set(kZ2 + "parallel.zero_group=2")},
      {"data 4, zero 3 in groups of 2", 4, set(kZ3 + "parallel.zero_group=2")},
      {"tensor 2, sequence, data 2, zero 2", 4, set(kSp + kZ2)},
      {"tensor 2, sequence, data 2, zero 3", 4, set(kSp + kZ3)},
      {"tensor 2, data 2, zero 3, one key/value head", 4,
       set("parallel.tensor=2 tiny.key_value_heads=1 " + kZ3)},
      {"tensor 2, sequence, data 2, zero 3, lora", 4, set(kSp + kZ3 + kLora)},
      {"ring 2, zero 3", 2, set(kRing + kZ3)},
      {"ulysses 2, zero 2", 2, set("parallel.context=2 " + kZ2)},
      {"ulysses 2, dsp vision, data 2, zero 3", 4,
       set("parallel.context=2 parallel.vision_context=dsp " + kZ3)},
      {"ring 2, data 2, zero 3 in groups of 2, recompute", 4,
       set(kRing + kZ3 + "parallel.zero_group=2 recompute.policy=full")},
      {"pipeline 2, data 2, zero 2", 4, set(kPp + kZ2)},
      {"pipeline 2, data 2, zero 3", 4, set(kPp + kZ3)},
      {"pipeline 2, data 2, zero 3, resharded, tied", 4,
       set(kPp + kZ3 + "parallel.zero_reshard=true tiny.tied=true")},
      {"pipeline 2, data 2, zero 2, tied", 4, set(kPp + kZ2 + "tiny.tied=true")},
      {"pipeline 2 x virtual 2, data 2, zero 2", 4, set(kVpp + kZ2)},
      {"pipeline 2 x virtual 2, data 2, zero 3, resharded, recompute", 4,
       set(kVpp + kZ3 + "parallel.zero_reshard=true recompute.policy=full")},
      {"pipeline 2, zero bubble, data 2, zero 2", 4, set(kZb + kZ2)},
      {"pipeline 2, zero bubble, data 2, zero 3, resharded", 4,
       set(kZb + kZ3 + "parallel.zero_reshard=true")},
      {"tensor 2, sequence, pipeline 2, data 2, zero 3, lora", 8, set(kSp + kPp + kZ3 + kLora)},
      {"hybrid 2 x 2, pipeline 2, zero 3", 8,
       set("parallel.context=4 parallel.context_algorithm=hybrid parallel.ulysses_degree=2 " + kPp +
           kZ3)},
  };
  return all;
}

class Equality : public testing::TestWithParam<EqualityRow> {
 protected:
  static void SetUpTestSuite() {
    std::printf(
        "| layout | ranks | loss | norm | gradient | bf16 | one bf16 process |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n");
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

  std::printf("| %s | %d | %.1e | %.1e | %.1e | %.2e | %.2e |\n", row.name.c_str(), row.processes,
              error.loss, error.norm, error.gradient, bf16.all_gradients, one.all_gradients);
  EXPECT_LE(error.loss, row.tolerance);
  EXPECT_LE(error.norm, row.tolerance);
  EXPECT_LE(error.gradient, row.tolerance) << error.worst;
  EXPECT_LE(bf16.all_gradients, 1.5 * one.all_gradients);
  EXPECT_LE(bf16.loss, 0.02);
}

std::string test_name(const testing::TestParamInfo<EqualityRow>& info) {
  std::string name;
  for (const char c : info.param.name)
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) name += c;
  return name;
}

INSTANTIATE_TEST_SUITE_P(Rows, Equality, testing::ValuesIn(rows()), test_name);
INSTANTIATE_TEST_SUITE_P(Zero, Equality, testing::ValuesIn(zero_rows()), test_name);

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

INSTANTIATE_TEST_SUITE_P(
    Rows, Mistakes,
    testing::Values(EqualityRow{"tensor 2, sequence", 2, set(kSp), 0, "no sums"},
                    EqualityRow{"tensor 2, lora", 2, set("parallel.tensor=2 " + kLora), 0,
                                "no sums"},
                    EqualityRow{"tensor 4, sequence", 4, set(kTp4Sp), 0, "no copies' sums"},
                    EqualityRow{"tensor 2", 2, set("parallel.tensor=2"), 0, "counted twice"},
                    EqualityRow{"pipeline 2, tied", 2, set(kPp + "tiny.tied=true"), 0,
                                "no sums of tied weights"},
                    EqualityRow{"pipeline 2, tied", 2, set(kPp + "tiny.tied=true"), 0,
                                "counted by each stage"}));

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  triptych::testing_ranks::add_scenario("equality", triptych::equality_rank);
  return triptych::testing_ranks::run_main(argc, argv);
}
