#include "plan/calibration.h"

#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>

#include "base/clock.h"
#include "base/error.h"
#include "base/files.h"
#include "base/format.h"
#include "base/progress.h"
#include "parallel/launch_environment.h"
#include "plan/measure_exchanges.h"
#include "plan/measure_kernels.h"
#include "train/matrix_peak.h"

namespace triptych {

namespace {

constexpr int64_t kVersion = 1;

/// The smallest of all ranks: the slowest decides.
std::vector<double> slowest(ProcessContext& process, const std::vector<double>& rates) {
  const auto all = at::tensor(rates, at::kDouble);
  process.control().all_reduce(all, ReduceOp::kMin, "calibration");
  const auto* first = all.const_data_ptr<double>();
  return {first, first + all.numel()};
}

Calibration read_one(const Json& json, const std::string& origin) {
  const auto member = [&](const char* key) -> const Json& {
    return json_member(json, key, origin);
  };
  Calibration c;
  try {
    member("device").get_to(c.device);
    member("precision").get_to(c.precision);
    member("processes").get_to(c.processes);
    member("threads").get_to(c.threads);
    member("when").get_to(c.when);
    member("peak_flop").get_to(c.peak_flop);
    member("memory_bandwidth").get_to(c.memory_bandwidth);
    member("launch_s").get_to(c.launch_s);
    member("matmul_efficiency").get_to(c.matmul_efficiency);
    member("attention_forward_efficiency").get_to(c.attention_forward_efficiency);
    member("attention_backward_efficiency").get_to(c.attention_backward_efficiency);
    const auto& exchanges = member("exchanges");
    for (auto it = exchanges.begin(); it != exchanges.end(); ++it) {
      ExchangeRate rate;
      json_member(it.value(), "latency_s", origin).get_to(rate.latency);
      json_member(it.value(), "bytes_per_s", origin).get_to(rate.bandwidth);
      c.exchanges.emplace(it.key(), rate);
    }
  } catch (const Json::exception& error) {
    throw DataError(fmt::format("{}: {}", origin, error.what()));
  }
  const auto above_0 = [&](double value) { return std::isfinite(value) && value > 0; };
  bool usable = c.processes > 0 && c.threads > 0;
  for (const double value : {c.peak_flop, c.memory_bandwidth, c.launch_s, c.matmul_efficiency,
                             c.attention_forward_efficiency, c.attention_backward_efficiency})
    usable = usable && above_0(value);
  for (const auto& [operation, rate] : c.exchanges)
    usable = usable && above_0(rate.bandwidth) && rate.latency >= 0;
  require<DataError>(usable, origin, ": rates of '", c.device, "' are not above 0");
  return c;
}

bool same_place(const Calibration& a, const Calibration& b) {
  return a.device == b.device && a.precision == b.precision && a.processes == b.processes &&
         a.threads == b.threads;
}

}  // namespace

std::string device_name(at::Device device) {
  if (!device.is_cpu()) {
    const auto memory = static_cast<double>(device_memory_bytes(device));
    return fmt::format("{} of {}", c10::DeviceTypeName(device.type(), true), bytes_text(memory));
  }
  std::ifstream in("/proc/cpuinfo");
  std::string model = "unknown processor";
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with("model name")) continue;
    model = line.substr(std::min(line.size(), line.find(':') + 2));
    break;
  }
  return fmt::format("cpu {}, {} cores", model, usable_cores());
}

Calibration calibrate(ProcessContext& process, at::Device device, at::ScalarType dtype,
                      const RecordedWork& work) {
  Calibration c{.device = device_name(device),
                .precision = dtype == at::kFloat ? "fp32" : "bf16",
                .processes = process.local_world_size(),
                .threads = process.threads(),
                .when = utc_time(wall_seconds())};
  // All ranks at once, as in a step.
  process.control().barrier("calibration");
  const double peak = measure_matrix_peak(device, dtype), copies = measure_copy_bandwidth(device);
  process.control().barrier("calibration");
  const auto kernels = measure_kernels(work, device, /*budget_s=*/8);
  const double launches = 1 / measure_launch(device);
  const auto rates = slowest(process, {peak, copies, launches, kernels.products,
                                       kernels.attention_forward, kernels.attention_backward});
  c.peak_flop = rates[0];
  c.memory_bandwidth = rates[1];
  c.launch_s = 1 / rates[2];
  const Machine usual;
  const auto efficiency = [&](double rate, double otherwise) {
    return rate > 0 ? rate / c.peak_flop : otherwise;
  };
  c.matmul_efficiency = efficiency(rates[3], usual.matmul_efficiency);
  c.attention_forward_efficiency = efficiency(rates[4], usual.attention_forward_efficiency);
  c.attention_backward_efficiency = efficiency(rates[5], usual.attention_backward_efficiency);
  if (process.world_size() == 1) return c;
  for (const auto& [operation, mine] : measure_exchanges(process.world(), device, dtype)) {
    const auto all = slowest(process, {mine.bandwidth, -mine.latency});
    c.exchanges[operation] = {.latency = -all[1], .bandwidth = all[0]};
  }
  return c;
}

std::filesystem::path calibration_file() {
  namespace fs = std::filesystem;
  const char *xdg = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
  const bool has_xdg = xdg != nullptr && *xdg != 0;
  if (!has_xdg && (home == nullptr || *home == 0)) return {};
  return (has_xdg ? fs::path(xdg) : fs::path(home) / ".cache") / "triptych" / "calibration.json";
}

std::vector<Calibration> read_calibrations(const std::filesystem::path& file) try {
  if (!std::filesystem::exists(file)) return {};
  const auto json = read_json(file, {.bytes = size_t{1} << 20});
  const auto origin = file.string();
  require<DataError>(json_member(json, "version", origin) == kVersion &&
                         json_member(json, "calibrations", origin).is_array(),
                     origin, ": not a file of this version's `plan --calibrate`");
  std::vector<Calibration> known;
  for (const auto& entry : json["calibrations"]) known.push_back(read_one(entry, origin));
  return known;
} catch (const DataError& error) {
  throw DataError(fmt::format("{}; delete the file and calibrate again", error.what()));
}

void store_calibration(const std::filesystem::path& file, const Calibration& calibration) {
  auto known = read_calibrations(file);
  std::erase_if(known, [&](const auto& other) { return same_place(other, calibration); });
  known.push_back(calibration);
  Json list = Json::array();
  for (const auto& c : known) list.push_back(calibration_json(c));
  make_folders(file.parent_path());
  write_file_atomically(file, dump_json({{"version", kVersion}, {"calibrations", list}}, 2) + "\n");
}

const Calibration* find_calibration(const std::vector<Calibration>& known,
                                    const std::string& device, const std::string& precision,
                                    int64_t processes) {
  const Calibration* best = nullptr;
  const auto distance = [&](const Calibration& c) {
    return std::abs(std::log(static_cast<double>(c.processes) / static_cast<double>(processes)));
  };
  for (const auto& c : known) {
    if (c.device != device || c.precision != precision) continue;
    if (best == nullptr || distance(c) <= distance(*best)) best = &c;  // the newest of the nearest
  }
  return best;
}

Machine calibrated_machine(const Calibration& c, Machine here, int64_t processes) {
  const double share = c.device.starts_with("cpu ")
                           ? static_cast<double>(c.processes) / static_cast<double>(processes)
                           : 1;
  here.name = fmt::format("{} (calibrated {} with {} process{})", here.name, c.when.substr(0, 10),
                          c.processes, c.processes == 1 ? "" : "es");
  here.peak_flop = c.peak_flop * share;
  here.memory_bandwidth = c.memory_bandwidth * share;
  here.launch_s = c.launch_s;
  here.matmul_efficiency = c.matmul_efficiency;
  here.attention_forward_efficiency = c.attention_forward_efficiency;
  here.attention_backward_efficiency = c.attention_backward_efficiency;
  here.exchanges = c.exchanges;
  // Messages between two ranks are not measured; they are one half of an exchange with all.
  if (const auto it = c.exchanges.find("all_to_all"); it != c.exchanges.end()) {
    here.link_bandwidth = it->second.bandwidth;
    here.link_latency = it->second.latency;
  }
  return here;
}

Json calibration_json(const Calibration& c) {
  Json exchanges = Json::object();
  for (const auto& [operation, rate] : c.exchanges)
    exchanges[operation] = {{"latency_s", rate.latency}, {"bytes_per_s", rate.bandwidth}};
  return {{"device", c.device},
          {"precision", c.precision},
          {"processes", c.processes},
          {"threads", c.threads},
          {"when", c.when},
          {"peak_flop", c.peak_flop},
          {"memory_bandwidth", c.memory_bandwidth},
          {"launch_s", c.launch_s},
          {"matmul_efficiency", c.matmul_efficiency},
          {"attention_forward_efficiency", c.attention_forward_efficiency},
          {"attention_backward_efficiency", c.attention_backward_efficiency},
          {"exchanges", exchanges}};
}

std::string calibration_text(const Calibration& c) {
  auto text = fmt::format(
      "{}, {}, {} process{} of {} thread{}\n  matrix products {} flop/s, copies {}/s, {:.3g} us a "
      "launch\n  of the peak at the run's shapes: products {:.2f}, attention forward {:.2f}, "
      "backward {:.2f}\n",
      c.device, c.precision, c.processes, c.processes == 1 ? "" : "es", c.threads,
      c.threads == 1 ? "" : "s", short_count(c.peak_flop), bytes_text(c.memory_bandwidth),
      1e6 * c.launch_s, c.matmul_efficiency, c.attention_forward_efficiency,
      c.attention_backward_efficiency);
  for (const auto& [operation, rate] : c.exchanges)
    text += fmt::format("  {:<16}{:.3g} us + bytes sent / {}/s\n", operation, 1e6 * rate.latency,
                        bytes_text(rate.bandwidth));
  return text;
}

}  // namespace triptych
