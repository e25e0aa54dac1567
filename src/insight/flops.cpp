#include "insight/flops.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
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

/// `["", "[1, 1]", "False"]` as its items; what is not in quotes is left out.
std::vector<std::string_view> items_of(std::string_view list) {
  std::vector<std::string_view> items;
  for (size_t at = 0;;) {
    const auto open = list.find('"', at);
    const auto close = open == std::string_view::npos ? open : list.find('"', open + 1);
    if (close == std::string_view::npos) return items;
    items.push_back(list.substr(open + 1, close - open - 1));
    at = close + 1;
  }
}

/// "[2, 14]" as one number a spatial dim; a single one counts for all, as ATen has it.
std::optional<std::vector<double>> per_dim(std::string_view text, size_t dims) {
  if (!text.starts_with("[")) return {};
  std::vector<double> values;
  for (size_t at = 1; at < text.size() && text[at] != ']';) {
    if (text[at] == ',' || text[at] == ' ') {
      ++at;
      continue;
    }
    double value = 0;
    const auto [behind, error] =
        std::from_chars(text.data() + at, text.data() + text.size(), value);
    if (error != std::errc() || !(value >= 0 && value < 1e9)) return {};
    values.push_back(value);
    at = static_cast<size_t>(behind - text.data());
  }
  if (values.size() == 1) values.resize(dims, values.front());
  if (values.size() != dims) return {};
  return values;
}

/// At which of its arguments a convolution has what; 0: it has none of the kind.
struct ConvolutionArguments {
  std::string_view name;
  size_t stride, padding, dilation, transposed, groups;
};
constexpr ConvolutionArguments kConvolutions[] = {{"aten::convolution", 3, 4, 5, 6, 8},
                                                  {"aten::cudnn_convolution", 3, 2, 4, 0, 5},
                                                  {"aten::mkldnn_convolution", 4, 3, 5, 0, 6}};

/// Each output value costs one window of the channels of its group.
/// @param x, w  sizes [N, C, ...] and [O, C / groups, ...]; transposed: [C, O / groups, ...]
double convolution_flops(const ConvolutionArguments& at, const std::vector<double>& x,
                         const std::vector<double>& w, std::string_view concrete) {
  const auto items = items_of(concrete);
  if (items.size() <= std::max({at.stride, at.padding, at.dilation, at.groups})) return 0;
  double work = 2 * x[0] * w[0];
  for (size_t i = 1; i < w.size(); ++i) work *= w[i];
  const bool transposed = at.transposed > 0 && items[at.transposed] == "True";
  double groups = 0;
  const auto text = items[at.groups];
  if (std::from_chars(text.data(), text.data() + text.size(), groups).ec != std::errc()) return 0;
  if (x[1] != (transposed ? w[0] : w[1] * groups)) return 0;  // not the sizes of one call
  const size_t dims = x.size() - 2;
  const auto stride = per_dim(items[at.stride], dims), padding = per_dim(items[at.padding], dims),
             dilation = per_dim(items[at.dilation], dims);
  if (!stride || !padding || !dilation) return 0;
  for (size_t i = 0; i < dims; ++i) {
    double size = x[i + 2];  // transposed: each value of the input is spread over one window
    if (!transposed) {
      if ((*stride)[i] < 1) return 0;
      const double room = size + 2 * (*padding)[i] - (*dilation)[i] * (w[i + 2] - 1) - 1;
      size = room < 0 ? 0 : std::floor(room / (*stride)[i]) + 1;
    }
    work *= size;
  }
  return work;
}

/// Dense matrix products by the vendors' data sheets, in TFLOP/s: bf16 or fp16, and fp32 without
/// tensor cores; of what the driver calls one device, so of one die of an MI250X. A longer name
/// comes before one that it contains.
struct DevicePeak {
  std::string_view name;
  double half, single;
};
constexpr DevicePeak kDevices[] = {
    {"H100 PCIe", 756, 51}, {"H100 NVL", 835, 60},   {"H100", 989, 67},   {"H200", 989, 67},
    {"B200", 2250, 75},     {"A100", 312, 19.5},     {"A30", 165, 10.3},  {"A10", 125, 31.2},
    {"L40S", 362, 91.6},    {"L4", 121, 30.3},       {"V100", 125, 15.7}, {"T4", 65, 8.1},
    {"MI300X", 1307, 163},  {"MI250X", 191.5, 23.9},
};

/// The words of a name, in capitals: "NVIDIA A100-SXM4" -> NVIDIA, A100, SXM4.
std::vector<std::string> words_of(std::string_view name) {
  std::vector<std::string> words;
  bool inside = false;
  for (const char c : name) {
    const auto letter = static_cast<unsigned char>(c);
    if (!std::isalnum(letter)) {
      inside = false;
      continue;
    }
    if (!inside) words.emplace_back();
    inside = true;
    words.back() += static_cast<char>(std::toupper(letter));
  }
  return words;
}

std::optional<PeakRate> nominal_of(const Json& metadata, bool single) {
  const auto devices = metadata.find("deviceProperties");
  if (devices == metadata.end() || !devices->is_array() || devices->empty()) return {};
  const Json& first = devices->front();
  if (!first.is_object() || !first.contains("name") || !first["name"].is_string()) return {};
  // Whole words: an RTX A1000 is no A100, an A10G no A10.
  const auto name = words_of(first["name"].get<std::string>());
  if (std::ranges::find(name, "MIG") != name.end()) return {};  // a part of a device
  for (const auto& device : kDevices) {
    const auto wanted = words_of(device.name);
    if (std::search(name.begin(), name.end(), wanted.begin(), wanted.end()) == name.end()) continue;
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

double flops_of(std::string_view name, std::string_view dims, std::string_view concrete) {
  if (dims.empty()) return 0;
  const auto d = parse_dims(dims);
  const auto rank = [&](size_t i) { return i < d.size() ? d[i].size() : 0; };
  if (name == "aten::mm" && rank(0) == 2 && rank(1) == 2) return 2 * d[0][0] * d[0][1] * d[1][1];
  if (name == "aten::addmm" && rank(1) == 2 && rank(2) == 2) return 2 * d[1][0] * d[1][1] * d[2][1];
  if (name == "aten::bmm" && rank(0) == 3 && rank(1) == 3)
    return 2 * d[0][0] * d[0][1] * d[0][2] * d[1][2];
  if (name == "aten::baddbmm" && rank(1) == 3 && rank(2) == 3)
    return 2 * d[1][0] * d[1][1] * d[1][2] * d[2][2];
  for (const auto& convolution : kConvolutions)
    if (name == convolution.name && rank(0) >= 3 && rank(1) == rank(0))
      return convolution_flops(convolution, d[0], d[1], concrete);
  if (name.find("scaled_dot_product") != std::string_view::npos &&
      name.find("backward") == std::string_view::npos && rank(0) == 4 && rank(1) == 4)
    return 4 * d[0][0] * d[0][1] * d[0][2] * d[1][2] * d[0][3];
  return 0;
}

bool needs_concrete_inputs(std::string_view name) {
  return std::ranges::find(kConvolutions, name, &ConvolutionArguments::name) !=
         std::end(kConvolutions);
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
