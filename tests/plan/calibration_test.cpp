// What --calibrate keeps, how it is found again, and which kernels it measures.

#include "plan/calibration.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <cstdlib>

#include "base/files.h"
#include "base/format.h"
#include "plan/measure_exchanges.h"
#include "planned_data.h"
#include "support/scratch.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;
using testing::DoubleNear;
using testing::HasSubstr;
using testing::ThrowsMessage;

class CalibrationFile : public testing::Test {
 protected:
  CalibrationFile()
      : folder_(fs::temp_directory_path() / fmt::format("calibration_{}", getpid())) {}
  ~CalibrationFile() override { fs::remove_all(folder_); }
  fs::path folder_, file_ = folder_ / "triptych" / "calibration.json";
};

Calibration calibration(int64_t processes, double peak) {
  return {.device = "cpu test, 2 cores",
          .precision = "bf16",
          .processes = processes,
          .threads = 1,
          .when = "2026-11-26T09:00:00.000+00:00",
          .peak_flop = peak,
          .memory_bandwidth = 1e10,
          .launch_s = 1e-6,
          .matmul_efficiency = 0.7,
          .attention_forward_efficiency = 0.6,
          .attention_backward_efficiency = 0.5,
          .exchanges = {{"all_to_all", {.latency = 1e-4, .bandwidth = 1e9}}}};
}

TEST_F(CalibrationFile, ReplacesWhatWasMeasuredInTheSamePlace) {
  EXPECT_TRUE(read_calibrations(file_).empty());
  store_calibration(file_, calibration(1, 1e12));
  store_calibration(file_, calibration(2, 5e11));
  store_calibration(file_, calibration(2, 6e11));
  const auto known = read_calibrations(file_);
  ASSERT_EQ(known.size(), 2);
  EXPECT_EQ(known[1].peak_flop, 6e11);
  EXPECT_EQ(known[1].exchanges, calibration(2, 0).exchanges);
  EXPECT_EQ(dump_json(calibration_json(known[0])),
            dump_json(calibration_json(calibration(1, 1e12))));
}

TEST_F(CalibrationFile, RefusesWhatIsNotItsOwn) {
  make_folders(file_.parent_path());
  write_file_atomically(file_, R"({"version": 1, "calibrations": [{"device": "x"}]})");
  EXPECT_THAT([&] { read_calibrations(file_); },
              ThrowsMessage<DataError>(HasSubstr("'precision' is missing; delete the file and")));
  write_file_atomically(file_, R"({"version": 7, "calibrations": []})");
  EXPECT_THAT([&] { read_calibrations(file_); },
              ThrowsMessage<DataError>(HasSubstr("delete the file")));
  auto bad = calibration_json(calibration(1, 1e12));
  bad["peak_flop"] = -1;
  write_file_atomically(file_, dump_json({{"version", 1}, {"calibrations", {bad}}}));
  EXPECT_THAT([&] { read_calibrations(file_); },
              ThrowsMessage<DataError>(HasSubstr("not above 0")));
}

TEST(Calibration, OfAnotherNumberOfProcessesIsSharedOutAnew) {
  const std::vector known{calibration(1, 1e12), calibration(2, 6e11)};
  EXPECT_EQ(find_calibration(known, "cpu test, 2 cores", "fp32", 2), nullptr);
  EXPECT_EQ(find_calibration(known, "cpu test, 2 cores", "bf16", 1), &known[0]);
  const auto* found = find_calibration(known, "cpu test, 2 cores", "bf16", 4);
  ASSERT_EQ(found, &known[1]);
  const auto four = calibrated_machine(*found, {.name = "here"}, 4);
  EXPECT_EQ(four.peak_flop, 3e11);
  EXPECT_EQ(four.memory_bandwidth, 5e9);
  EXPECT_EQ(four.matmul_efficiency, 0.7);
  EXPECT_EQ(four.exchanges, known[1].exchanges);
  EXPECT_THAT(four.name, HasSubstr("here (calibrated 2026-11-26 with 2 processes)"));
}

TEST(FitRate, FindsTheLineThroughItsPoints) {
  const auto line = [](double bytes) { return 2e-4 + bytes / 1e9; };
  const auto rate = fit_rate({{1e5, line(1e5)}, {1e6, line(1e6)}, {1e7, line(1e7)}});
  EXPECT_THAT(rate.latency, DoubleNear(2e-4, 1e-10));  // of 1e-4: rounding alone
  EXPECT_THAT(rate.bandwidth, DoubleNear(1e9, 1e3));
  // Noise may ask for a negative part; there is none.
  const auto steep = fit_rate({{1e5, 1e-5}, {1e6, 2e-3}, {1e7, 3e-2}});
  EXPECT_EQ(steep.latency, 0);
  EXPECT_GT(steep.bandwidth, 0);
  const auto flat = fit_rate({{1e5, 3e-3}, {1e6, 2e-3}, {1e7, 1e-3}});
  EXPECT_GT(flat.latency, 0);
  EXPECT_GT(flat.bandwidth, 0);
}

// 3B: the first tensor rank of two holds half of the text model's MLP.
TEST(RecordedWork, HasTheProductsOfThisRank) {
  RunOptions options;
  options.model.preset = "qwen2_5_vl_3b";
  options.data.max_length = 1024;
  options.train.global_batch = 1;
  options.parallel.tensor = 2;
  const auto work = record_work(options, 2, 0, 2);
  int64_t calls = 0, back = 0;
  for (const auto& [shape, count] : work.attention) {
    if (!shape.causal) continue;  // of the tower
    EXPECT_EQ(shape.H, 8);
    EXPECT_EQ(shape.G, 1);
    EXPECT_EQ(shape.queries, (std::vector<int64_t>{0, 1024}));
    EXPECT_EQ(shape.flop(), (shape.backward ? 2.5 : 1) * 2 * 8 * 128 * 1024 * 1024);
    (shape.backward ? back : calls) += count;
  }
  const int64_t steps = calls / 36;  // a plan runs a short step twice
  ASSERT_GT(steps, 0);
  EXPECT_EQ(calls, steps * 36);
  EXPECT_EQ(back, steps * 36);
  int64_t forward = 0, input_gradients = 0, weight_gradients = 0;
  for (const auto& [shape, count] : work.products) {
    EXPECT_EQ(shape.dtype, at::kBFloat16);
    if (shape.M == 1024 && shape.K == 2048 && shape.N == 5504) forward += count;  // gate, up
    if (shape.M == 1024 && shape.K == 5504 && shape.N == 2048) input_gradients += count;
    if (shape.M == 5504 && shape.K == 1024 && shape.N == 2048) weight_gradients += count;
  }
  EXPECT_EQ(forward, steps * (2 * 36 + 36));          // and of `down`, backward
  EXPECT_EQ(input_gradients, steps * (2 * 36 + 36));  // and `down`, forward
  EXPECT_EQ(weight_gradients, steps * 2 * 36);
}

// By data, segments are its samples and products have its rows.
TEST(RecordedWork, HasTheShapesOfTheData) {
  const Scratch folder;
  write_planned_run(folder.path());
  RunOptions options;
  options.model.path = folder / "model";
  options.data.train.push_back({.path = folder / "train.jsonl"});
  options.data.max_length = 512;
  options.train.global_batch = 2;
  options.train.steps = 1;
  const auto data = read_plan_data(options, 1);
  const auto& row = data.rows.steps.front().at(1).samples;  // data rank 1 has the second one
  ASSERT_GT(row.size(), 2);
  std::vector<int64_t> bounds{0};
  for (const auto& sample : row)
    bounds.push_back(bounds.back() + static_cast<int64_t>(sample.tokens.size()));
  const auto work = record_work(options, 2, 1, 2, &data);
  int64_t calls = 0;
  for (const auto& [shape, count] : work.attention) {
    if (!shape.causal || shape.backward) continue;
    EXPECT_EQ(shape.queries, bounds);
    calls += count;
  }
  const int64_t steps = calls / 6;  // layers; a plan runs a short step twice
  ASSERT_GT(steps, 0);
  EXPECT_EQ(calls, steps * 6);
  int64_t gates = 0;
  for (const auto& [shape, count] : work.products)
    gates += shape.M == bounds.back() && shape.K == 256 && shape.N == 704 ? count : 0;
  EXPECT_EQ(gates, steps * (2 * 6 + 6));  // gate and up of each layer, and backward of `down`
}

}  // namespace
}  // namespace triptych
