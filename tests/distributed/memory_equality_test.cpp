// Recompute, offload and shared pictures: against one process, and bit by bit against the same
// layout without them.

#include <gtest/gtest.h>

#include <cctype>
#include <map>
#include <sstream>

#include "equality.h"
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
const std::string kRing = "parallel.context=2 parallel.context_algorithm=ring ";
const std::string kPp = "parallel.pipeline=2 ";
const std::string kVpp = kPp + "parallel.virtual=2 ";
const std::string kZb = kPp + "parallel.schedule=zb_h1 ";
const std::string kLora =
    R"(model.lora.rank=4 model.lora.alpha=8 model.lora.dropout=0.2 )"
    R"(model.lora.targets=["q_proj","k_proj","v_proj","o_proj","up_proj","down_proj","qkv"] )";
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

class Memory : public testing::TestWithParam<EqualityRow> {};

TEST_P(Memory, TrainsWhatOneProcessTrains) {
  const auto& row = GetParam();
  const auto error = compare(train_row(row, false), train_alone(row, false));
  EXPECT_LE(error.loss, row.tolerance);
  EXPECT_LE(error.norm, row.tolerance);
  EXPECT_LE(error.gradient, row.tolerance) << error.worst;
}

INSTANTIATE_TEST_SUITE_P(Rows, Memory, testing::ValuesIn(memory_rows()), [](const auto& info) {
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

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  triptych::testing_ranks::add_scenario("equality", triptych::equality_rank);
  return triptych::testing_ranks::run_main(argc, argv);
}
