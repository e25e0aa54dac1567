// A snapshot read back by PyTorch's own tools and by the viewer's reader, against the books.

#include "profile/memory_snapshot.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdlib>
#include <numeric>

#include "base/error.h"
#include "base/files.h"
#include "base/format.h"
#include "insight/snapshot.h"
#include "kernels/cpu_allocator.h"
#include "kernels/memory_scope.h"
#include "support/paths.h"
#include "support/scratch.h"

namespace triptych {
namespace {

class Snapshot : public testing::Test {
 protected:
  static void SetUpTestSuite() { install_cpu_allocator(); }
  const Scratch scratch_;
  const std::filesystem::path folder_ = scratch_ / "memory";  // not there yet
};

at::Tensor layer(const char* name, const at::Tensor& x, const at::Tensor& weight) {
  const MemoryScope scope(MemoryPhase::kForward, name);
  return at::gelu(at::linear(x, weight));
}

TEST_F(Snapshot, PyTorchsToolsAndTheViewerReadIt) {
  const auto weight = at::randn({64, 64}).set_requires_grad(true);
  const auto big = at::zeros({3 << 20});  // segments lie further apart than one gap
  memory_layer("snapshot.0");
  tag_memory(weight, MemoryKind::kParameter, "snapshot.0.weight");
  tag_memory(big, MemoryKind::kOptimizerState, "snapshot.0.weight");
  const auto x = at::randn({200, 64});
  auto gone = at::empty({1000});

  reset_memory_peak();
  start_memory_recording();
  auto y = layer("snapshot.1", layer("snapshot.0", x, weight), weight);
  gone.reset();
  torch::autograd::backward({y.sum()}, {});
  tag_memory(weight.grad(), MemoryKind::kGradient, "snapshot.0.weight");
  const auto kept = layer("snapshot.0", x, weight);
  const auto peak = memory_peak();
  const auto recording = stop_memory_recording();

  const auto path = new_snapshot_path(folder_, 7);
  EXPECT_THAT(path.filename().string(),
              testing::MatchesRegex("snapshot_[0-9]{4}(-[0-9]{2}){4}_7\\.pickle"));
  write_memory_snapshot(path, recording,
                        {.rank = 7, .world_size = 8, .first_step = 3, .end_step = 4});
  EXPECT_NE(new_snapshot_path(folder_, 7), path) << "another one in the same minute";
  int64_t allocated = 0;
  for (const auto& block : recording.after) allocated += block.bytes;
  EXPECT_EQ(std::system(fmt::format("python3 {}/tests/profile/check_snapshot.py {} {} {} {}",
                                    source_dir(), torch_dir() + "/cuda/_memory_viz.py",
                                    path.string(), allocated, peak.bytes)
                            .c_str()),
            0);

  const auto read = insight::snapshot_json(path);
  EXPECT_EQ(read["about"]["rank"], 7);
  EXPECT_EQ(read["about"]["first_step"], 3);
  EXPECT_EQ(read["peak"]["allocated"], peak.bytes);
  int64_t categories = 0, layers = 0;
  for (const auto& [name, bytes] : read["peak"]["categories"].items())
    categories += bytes.get<int64_t>();
  for (const auto& row : read["peak"]["layers"]) layers += row["bytes"].get<int64_t>();
  EXPECT_EQ(categories, peak.bytes);
  EXPECT_EQ(layers, peak.bytes);
  const auto of = [&](MemoryKind kind) {
    return read["peak"]["categories"].value(std::string(name_of(kind)), int64_t{0});
  };
  EXPECT_EQ(of(MemoryKind::kParameter), 64 * 64 * 4);
  EXPECT_EQ(of(MemoryKind::kOptimizerState), 12 << 20);
  // Of the first layer x W^T and its result, of the second the product and, after its end, y.
  EXPECT_GE(of(MemoryKind::kActivation), 4 * 200 * 64 * 4);

  // At every point the categories are the whole.
  const auto& curve = read["curve"];
  ASSERT_GT(curve["points"].size(), 10u);
  int64_t most = 0;
  for (size_t i = 0; i < curve["points"].size(); ++i) {
    int64_t sum = 0;
    for (const auto& [name, values] : curve["categories"].items()) {
      EXPECT_GE(values[i].get<int64_t>(), 0) << name;
      sum += values[i].get<int64_t>();
    }
    EXPECT_EQ(sum, curve["points"][i]["allocated"]) << "point " << i;
    most = std::max(most, sum);
  }
  EXPECT_EQ(most, peak.bytes);
}

TEST_F(Snapshot, ARingKeepsTheEndRight) {
  at::Tensor last;
  start_memory_recording(7);
  for (int i = 1; i < 20; ++i) last = at::empty({i * 100});
  const auto recording = stop_memory_recording();
  const auto path = new_snapshot_path(folder_, 0);
  write_memory_snapshot(path, recording, {});
  const auto read = insight::snapshot_json(path);
  EXPECT_EQ(read["about"]["dropped"], 19 + 18 - 7);
  EXPECT_EQ(read["devices"][0]["allocated"], memory_totals().bytes);
  EXPECT_EQ(read["peak"]["allocated"].get<int64_t>(), memory_totals().bytes + 1800 * 4)
      << "the last but one is freed only when the last is there";
}

TEST_F(Snapshot, AFullDiskIsNamed) {
  EXPECT_THAT([] { write_memory_snapshot("/dev/full/x.pickle", memory_blocks(), {}); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("/dev/full/x.pickle")));
}

}  // namespace
}  // namespace triptych
