#include "checkpoint/adapter.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "support/scratch.h"

namespace triptych {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

Adapter small_adapter() {
  const std::string module = "model.language_model.layers.0.self_attn.q_proj";
  return {
      .config = {.base_model = "base", .rank = 2, .targets = std::vector<std::string>{"q_proj"}},
      .tensors = {{module + ".lora_A.weight", at::randn({2, 6})},
                  {module + ".lora_B.weight", at::randn({4, 2})},
                  {"lm_head.weight", at::randn({3, 6})}}};
}

TEST(Adapter, ComesBackWithPeftsNames) {
  const Scratch scratch;
  const auto adapter = small_adapter();
  save_adapter(scratch / "a", adapter);
  const auto file = SafetensorsFile::open(scratch / "a" / kAdapterWeightsFile);
  EXPECT_EQ(file->header().tensors.front().name, "base_model.model.lm_head.weight");
  const auto again = load_adapter(scratch / "a");
  EXPECT_EQ(again.config.rank, 2);
  ASSERT_EQ(again.tensors.size(), 3);
  for (const auto& [name, tensor] : adapter.tensors)
    EXPECT_TRUE(again.tensors.at(name).equal(tensor));
  save_adapter(scratch / "a", again);  // replaces
}

TEST(AdapterErrors, NameFileAndTensor) {
  struct Row {
    std::function<void(Adapter&)> change;
    const char* message;
  };
  const std::string module = "model.language_model.layers.0.self_attn.q_proj";
  const Row rows[] = {
      {[&](auto& a) { a.tensors.erase(module + ".lora_B.weight"); },
       "but no 'model.language_model"},
      {[](auto& a) { a.config.rank = 3; }, "the configuration gives it rank 3"},
      {[&](auto& a) { a.tensors[module + ".lora_B.weight"] = at::zeros({2}); },
       "is [2], the configuration"},
  };
  for (const auto& row : rows) {
    const Scratch scratch;
    auto adapter = small_adapter();
    row.change(adapter);
    save_adapter(scratch / "a", adapter);
    EXPECT_THAT([&] { load_adapter(scratch / "a"); },
                ThrowsMessage<DataError>(HasSubstr(row.message)));
  }
  const Scratch scratch;
  EXPECT_THAT([&] { load_adapter(scratch / "none"); },
              ThrowsMessage<DataError>(HasSubstr("is not a folder")));
  EXPECT_THAT([&] { load_adapter(scratch.path()); },
              ThrowsMessage<DataError>(HasSubstr("has no adapter_config.json")));
  save_adapter(scratch / "a", small_adapter());
  std::filesystem::rename(scratch / "a/adapter_model.safetensors", scratch / "a/adapter_model.bin");
  EXPECT_THAT([&] { load_adapter(scratch / "a"); },
              ThrowsMessage<DataError>(HasSubstr("only the pickle")));
  save_safetensors(scratch / "a/adapter_model.safetensors",
                   {{"x.lora_A.weight", at::zeros({2, 2})}});
  EXPECT_THAT([&] { load_adapter(scratch / "a"); },
              ThrowsMessage<DataError>(
                  HasSubstr("'x.lora_A.weight' does not begin with 'base_model.model.'")));
}

}  // namespace
}  // namespace triptych
