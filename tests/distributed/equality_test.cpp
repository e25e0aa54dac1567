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

INSTANTIATE_TEST_SUITE_P(Rows, Equality, testing::ValuesIn(rows()), [](const auto& info) {
  std::string name;
  for (const char c : info.param.name)
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) name += c;
  return name;
});

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
