#include "insight/flops.h"

#include <algorithm>
#include <charconv>
#include <vector>

namespace triptych::insight {
namespace {

std::vector<std::vector<double>> parse_dims(std::string_view dims) {
  std::vector<std::vector<double>> lists;
  if (!dims.starts_with("[")) return lists;
  for (size_t at = 1; at < dims.size();) {
    if (dims[at] == '[') {
      lists.emplace_back();
      ++at;
    } else if (dims[at] >= '0' && dims[at] <= '9' && !lists.empty()) {
      double value = 0;
      const auto [behind, error] =
          std::from_chars(dims.data() + at, dims.data() + dims.size(), value);
      if (error != std::errc()) return {};
      lists.back().push_back(value);
      at = static_cast<size_t>(behind - dims.data());
    } else {
      ++at;
    }
  }
  return lists;
}

/// Dense matrix products by the vendors' data sheets, in TFLOP/s: bf16 or fp16, and fp32 without
/// tensor cores. A longer name comes before one that it contains.
struct DevicePeak {
  std::string_view name;
  double half, single;
};
constexpr DevicePeak kDevices[] = {
    {"H100 PCIe", 756, 51}, {"H100 NVL", 835, 60}, {"H100", 989, 67},   {"H200", 989, 67},
    {"B200", 2250, 75},     {"A100", 312, 19.5},   {"A30", 165, 10.3},  {"A10", 125, 31.2},
    {"L40S", 362, 91.6},    {"L4", 121, 30.3},     {"V100", 125, 15.7}, {"T4", 65, 8.1},
    {"MI300X", 1307, 163},  {"MI250X", 383, 47.9},
};

std::optional<PeakRate> nominal_of(const Json& metadata, bool single) {
  const auto devices = metadata.find("deviceProperties");
  if (devices == metadata.end() || !devices->is_array() || devices->empty()) return {};
  const Json& first = devices->front();
  if (!first.is_object() || !first.contains("name") || !first["name"].is_string()) return {};
  const auto name = first["name"].get<std::string>();
  for (const auto& device : kDevices) {
    if (name.find(device.name) == std::string::npos) continue;
    return PeakRate{1e12 * (single ? device.single : device.half),
                    std::string(device.name) + (single ? ", fp32" : ", half precision, dense")};
  }
  return {};
}

double positive(const Json& object, const char* key) {
  const auto at = object.find(key);
  if (at == object.end() || !at->is_number()) return 0;
  const auto value = at->get<double>();
  return value > 0 && value < 1e30 ? value : 0;
}

}  // namespace

double flops_of(std::string_view name, std::string_view dims) {
  if (dims.empty()) return 0;
  const auto d = parse_dims(dims);
  const auto rank = [&](size_t i) { return i < d.size() ? d[i].size() : 0; };
  if (name == "aten::mm" && rank(0) == 2 && rank(1) == 2) return 2 * d[0][0] * d[0][1] * d[1][1];
  if (name == "aten::addmm" && rank(1) == 2 && rank(2) == 2) return 2 * d[1][0] * d[1][1] * d[2][1];
  if (name == "aten::bmm" && rank(0) == 3 && rank(1) == 3)
    return 2 * d[0][0] * d[0][1] * d[0][2] * d[1][2];
  if (name == "aten::baddbmm" && rank(1) == 3 && rank(2) == 3)
    return 2 * d[1][0] * d[1][1] * d[1][2] * d[2][2];
  const bool conv = name == "aten::convolution" || name == "aten::cudnn_convolution" ||
                    name == "aten::mkldnn_convolution";
  if (conv && rank(0) >= 3 && rank(1) == rank(0)) {
    // Each output value costs one window; without stride and padding the output has the input's
    // size.
    double work = 2 * d[0][0] * d[1][0];
    for (size_t i = 1; i < d[1].size(); ++i) work *= d[1][i];
    for (size_t i = 2; i < d[0].size(); ++i) work *= d[0][i];
    return work;
  }
  if (name.find("scaled_dot_product") != std::string_view::npos &&
      name.find("backward") == std::string_view::npos && rank(0) == 4 && rank(1) == 4)
    return 4 * d[0][0] * d[0][1] * d[0][2] * d[1][2] * d[0][3];
  return 0;
}

Peaks peaks_of(const Run& run) {
  Peaks peaks;
  const Json info = run.model_info();
  if (run.peak_flops_per_s() > 0)
    peaks.measured = PeakRate{run.peak_flops_per_s(), "told by --peak"};
  else if (info.is_object() && positive(info, "peak_flop_per_second") > 0)
    peaks.measured = PeakRate{positive(info, "peak_flop_per_second"), "measured by the run"};
  const bool single = info.is_object() && info.contains("dtype") && info["dtype"] == "fp32";
  for (const auto& file : run.files()) {
    if (!file.loaded || !file.error.empty() || !file.trace.metadata().is_object()) continue;
    peaks.nominal = nominal_of(file.trace.metadata(), single);
    if (peaks.nominal) break;
  }
  return peaks;
}

void add_share_of_peak(Json& row, const Peaks& peaks) {
  const double rate = positive(row, "flops_per_s");
  if (rate <= 0) return;
  if (peaks.measured) row["of_peak"] = rate / peaks.measured->flops_per_s;
  if (peaks.nominal) row["of_nominal_peak"] = rate / peaks.nominal->flops_per_s;
}

Json to_json(const Peaks& peaks) {
  Json out = Json::object();
  const auto add = [&](const char* name, const std::optional<PeakRate>& peak) {
    if (peak) out[name] = {{"flops_per_s", peak->flops_per_s}, {"source", peak->source}};
  };
  add("peak", peaks.measured);
  add("nominal_peak", peaks.nominal);
  return out;
}

std::optional<double> model_flops_utilization(const Run& run, const Peaks& peaks, int64_t step_ns) {
  const Json info = run.model_info();
  const double flops = info.is_object() ? positive(info, "model_flop_per_step") : 0;
  const auto& peak = peaks.measured ? peaks.measured : peaks.nominal;
  if (flops <= 0 || !peak || step_ns <= 0) return {};
  const auto devices = static_cast<double>(std::max<int64_t>(1, run.world_size()));
  return flops / (static_cast<double>(step_ns) / 1e9 * devices * peak->flops_per_s);
}

}  // namespace triptych::insight
