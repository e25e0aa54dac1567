#include "insight/flops.h"

#include <gtest/gtest.h>

#include "base/format.h"
#include "insight/queries.h"
#include "loaded.h"

namespace triptych::insight {
namespace {

struct Convolution {
  const char* what;
  const char* name;
  const char* dims;
  const char* concrete;
  double flops;
};

class Convolutions : public testing::TestWithParam<Convolution> {};
TEST_P(Convolutions, CountTheirOutput) {
  const auto& c = GetParam();
  EXPECT_EQ(flops_of(c.name, c.dims, c.concrete), c.flops);
  // Through a trace as Kineto writes it.
  const auto run = run_of({fmt::format(
      R"([{{"ph":"X","cat":"cpu_op","name":"{}","pid":1,"tid":1,"ts":1,"dur":2,
           "args":{{"Input Dims":{},"Concrete Inputs":{}}}}}])",
      c.name, c.dims, *c.concrete ? c.concrete : "[]")});
  EXPECT_EQ(Queries(run).ops({})["rows"][0]["flops"].get<double>(), c.flops);
}
INSTANTIATE_TEST_SUITE_P(
    Kinds, Convolutions,
    testing::Values(
        // The patch embedding of Qwen2.5-VL's vision tower on 64 patches: one window each.
        Convolution{
            "patches", "aten::convolution",
            "[[64, 3, 2, 14, 14], [1280, 3, 2, 14, 14], [], [], [], [], [], [], []]",
            R"(["", "", "", "[2, 14, 14]", "[0, 0, 0]", "[1, 1, 1]", "False", "[0, 0, 0]", "1"])",
            2.0 * 64 * 1280 * 3 * 2 * 14 * 14},
        // A video at once: 8 frames of 112 x 224 are 4 x 8 x 16 windows.
        Convolution{
            "strided", "aten::convolution",
            "[[1, 3, 8, 112, 224], [1280, 3, 2, 14, 14], [], [], [], [], [], [], []]",
            R"(["", "", "", "[2, 14, 14]", "[0, 0, 0]", "[1, 1, 1]", "False", "[0, 0, 0]", "1"])",
            2.0 * 4 * 8 * 16 * 1280 * 3 * 2 * 14 * 14},
        // (10 + 2 - 2 * (3 - 1) - 1) / 2 + 1 = 4 rows and columns.
        Convolution{"padded and dilated", "aten::convolution",
                    "[[2, 8, 10, 10], [16, 8, 3, 3], [16], [], [], [], [], [], []]",
                    R"(["", "", "", "[2]", "[1, 1]", "[2, 2]", "False", "[0, 0]", "1"])",
                    2.0 * 2 * 4 * 4 * 16 * 8 * 9},
        // Each output channel sees 8 / 4 channels.
        Convolution{
            "grouped", "aten::convolution", "[[2, 8, 10], [16, 2, 3], [], [], [], [], [], [], []]",
            R"(["", "", "", "[1]", "[1]", "[1]", "False", "[0]", "4"])", 2.0 * 2 * 10 * 16 * 2 * 3},
        Convolution{"cudnn", "aten::cudnn_convolution",
                    "[[1, 4, 9, 9], [8, 4, 3, 3], [], [], [], [], [], [], []]",
                    R"(["", "", "[0, 0]", "[2, 2]", "[1, 1]", "1", "False", "False", "True"])",
                    2.0 * 4 * 4 * 8 * 4 * 9},
        Convolution{"mkldnn", "aten::mkldnn_convolution",
                    "[[1, 4, 9, 9], [8, 4, 3, 3], [8], [], [], [], []]",
                    R"(["", "", "", "[0, 0]", "[2, 2]", "[1, 1]", "1"])", 2.0 * 4 * 4 * 8 * 4 * 9},
        // Each of 5 x 5 input values of 8 channels reaches one window of 2 x 4 channels.
        Convolution{"transposed", "aten::convolution",
                    "[[1, 8, 5, 5], [8, 2, 3, 3], [], [], [], [], [], [], []]",
                    R"(["", "", "", "[2, 2]", "[0, 0]", "[1, 1]", "True", "[0, 0]", "4"])",
                    2.0 * 5 * 5 * 8 * 2 * 9},
        Convolution{"stride not recorded", "aten::convolution",
                    "[[2, 8, 10], [16, 2, 3], [], [], [], [], [], [], []]", "", 0},
        Convolution{"a stride of nothing", "aten::convolution",
                    "[[2, 8, 10], [16, 8, 3], [], [], [], [], [], [], []]",
                    R"(["", "", "", "[0]", "[1]", "[1]", "False", "[0]", "1"])", 0},
        Convolution{"smaller than its window", "aten::convolution",
                    "[[2, 8, 2], [16, 8, 3], [], [], [], [], [], [], []]",
                    R"(["", "", "", "[1]", "[0]", "[1]", "False", "[0]", "1"])", 0}),
    [](const auto& info) {
      std::string name = info.param.what;
      for (char& c : name)
        if (c == ' ') c = '_';
      return name;
    });

struct Device {
  const char* name;
  double teraflops;  ///< 0: it is not in the table
};
class NominalPeak : public testing::TestWithParam<Device> {};
TEST_P(NominalPeak, IsThatOfTheDeviceItself) {
  const auto run = run_of({fmt::format(R"({{"deviceProperties":[{{"id":0,"name":"{}"}}],
      "traceEvents":[{{"ph":"X","cat":"cpu_op","name":"aten::mm","pid":1,"tid":1,"ts":1,"dur":2}}]}})",
                                       GetParam().name)});
  const auto peak = peaks_of(*run).nominal;
  EXPECT_DOUBLE_EQ(peak ? peak->flops_per_s : 0, GetParam().teraflops * 1e12) << GetParam().name;
}
INSTANTIATE_TEST_SUITE_P(
    Names, NominalPeak,
    testing::Values(Device{"NVIDIA A100-SXM4-80GB", 312}, Device{"NVIDIA A100 80GB PCIe", 312},
                    Device{"NVIDIA H100 80GB HBM3", 989}, Device{"NVIDIA H100 PCIe", 756},
                    Device{"NVIDIA H100 NVL", 835}, Device{"NVIDIA L40S", 362},
                    Device{"NVIDIA L4", 121}, Device{"Tesla T4", 65}, Device{"NVIDIA A10", 125},
                    Device{"Tesla V100-SXM2-32GB", 125}, Device{"AMD Instinct MI300X", 1307},
                    Device{"AMD Instinct MI250X", 191.5},  // one of its two dies
                    // Others whose names hold one of these.
                    Device{"NVIDIA RTX A1000", 0}, Device{"NVIDIA RTX A3000 Laptop GPU", 0},
                    Device{"NVIDIA L40", 0}, Device{"NVIDIA T400 4GB", 0}, Device{"NVIDIA A10G", 0},
                    Device{"NVIDIA GH200 480GB", 0},
                    Device{"NVIDIA A100-SXM4-40GB MIG 1g.5gb", 0}));

}  // namespace
}  // namespace triptych::insight
