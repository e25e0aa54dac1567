#pragma once

// What `plan --calibrate` measured of this machine, kept for later plans.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "parallel/process_context.h"
#include "plan/machine.h"
#include "plan/recorded_work.h"

namespace triptych {

/// Rates of one process while `processes` of them work on one machine, the slowest of them.
struct Calibration {
  std::string device;     ///< device_name
  std::string precision;  ///< "bf16" or "fp32"
  int64_t processes = 1, threads = 1;
  std::string when;  ///< UTC
  double peak_flop = 0, memory_bandwidth = 0, launch_s = 0;
  double matmul_efficiency = 0;
  double attention_forward_efficiency = 0, attention_backward_efficiency = 0;
  std::map<std::string, ExchangeRate> exchanges;  ///< empty with one process
};

/// "cpu AMD EPYC 7763 64-Core Processor, 2 cores"
std::string device_name(at::Device device);

/// Measures on every rank at once; half a minute at most. All ranks call it and get the same.
/// @param work  what the run's step computes (record_work)
Calibration calibrate(ProcessContext& process, at::Device device, at::ScalarType dtype,
                      const RecordedWork& work);

/// $XDG_CACHE_HOME/triptych/calibration.json, else below ~/.cache.
/// Empty where the environment names neither.
std::filesystem::path calibration_file();

/// Those in the file; none where there is no file.
/// @throws DataError for a file that is not ours
std::vector<Calibration> read_calibrations(const std::filesystem::path& file);
/// Adds one, in the place of an older one of the same device, precision, processes and threads.
void store_calibration(const std::filesystem::path& file, const Calibration& calibration);

/// The one measured with so many processes, else with the nearest number of them; null: none of
/// this device and precision.
const Calibration* find_calibration(const std::vector<Calibration>& known,
                                    const std::string& device, const std::string& precision,
                                    int64_t processes);
/// `here` for one of `processes`: measured with another number of them, the machine's products and
/// bandwidth are shared out anew.
Machine calibrated_machine(const Calibration& calibration, Machine here, int64_t processes);

Json calibration_json(const Calibration& calibration);
std::string calibration_text(const Calibration& calibration);

}  // namespace triptych
