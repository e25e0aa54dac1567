#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "insight/run.h"

namespace triptych::insight {

/// Multiply-adds counted twice: matrix products, convolutions, attention; by the text of
/// `Input Dims`, and of `Concrete Inputs` for the stride, padding, dilation and groups of
/// convolutions. 0 for other operators, and for convolutions where these were not recorded.
double flops_of(std::string_view name, std::string_view dims, std::string_view concrete = "");
/// True for operators of which flops_of needs `Concrete Inputs`.
bool needs_concrete_inputs(std::string_view name);

/// What one device can do at most, and who says so.
struct PeakRate {
  double flops_per_s = 0;
  std::string source;  ///< "measured by the run", "A100, half precision, dense", ...
};
struct Peaks {
  std::optional<PeakRate> measured;  ///< told by the user, else `peak_flop_per_second` of `mm`
  std::optional<PeakRate> nominal;   ///< of the data sheet, by the name in deviceProperties
};

/// Of the first trace of the run that says so. Dense products in the run's precision.
Peaks peaks_of(const Run& run);

/// Adds `of_peak` and `of_nominal_peak`, as far as they are known, to a row with `flops_per_s`.
void add_share_of_peak(Json& row, const Peaks& peaks);
/// {"peak":{"flops_per_s","source"},"nominal_peak":{...}}; {} when nothing is known.
Json to_json(const Peaks& peaks);

/// Model FLOPs of one step over time, devices and peak; nothing when one of them is unknown.
std::optional<double> model_flops_utilization(const Run& run, const Peaks& peaks, int64_t step_ns);

}  // namespace triptych::insight
