#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "insight/flops.h"
#include "insight/run.h"

namespace triptych::insight {

/// One row of the operator table: all calls with the same key, over the chosen ranks and steps.
struct OpRow {
  std::string key, name, shapes, module;
  std::string op_class;
  int64_t calls = 0;
  int64_t total_ns = 0;  ///< of outermost calls only, where an operator calls itself
  int64_t self_ns = 0;
  int64_t min_ns = INT64_MAX, max_ns = 0;
  int64_t device_total_ns = 0, device_self_ns = 0;
  double flops = 0;  ///< from the shapes, where they were recorded; 0 unknown
  int64_t first_ns = INT64_MAX;
  uint64_t first_id = 0;
  std::vector<float> durations;  ///< of every call, for percentiles and the sparkline
};

/// One row of the kernel table.
struct KernelRow {
  std::string name, kernel_class, op, module;
  int64_t calls = 0, total_ns = 0, min_ns = INT64_MAX, max_ns = 0;
  double squares = 0;  ///< sum of squared durations
  double occupancy_time = 0, occupancy_weight = 0;
  int32_t grid[3] = {0, 0, 0}, block[3] = {0, 0, 0};
  int64_t bytes = 0;
  double flops = 0;  ///< of the operators that launched them, by the kernels' share of their time
  uint64_t first_id = 0;
  double std_ns() const;  ///< of the sample
};

enum class GroupBy { kName, kShapes, kModule, kStack };

struct RowFilter {
  std::vector<int> files;
  std::optional<int64_t> step;
  std::string module;  ///< this path or below
  std::string name;    ///< part of the name, any case
};

std::vector<OpRow> op_rows(const Run& run, const RowFilter& filter, GroupBy group);
std::vector<KernelRow> kernel_rows(const Run& run, const RowFilter& filter, bool by_module);

/// Time by module path: what its operators and kernels took, without those of modules inside (self)
/// and with them (total).
struct ModuleRow {
  std::string module;
  int64_t calls = 0, total_ns = 0, self_ns = 0, device_total_ns = 0, device_self_ns = 0;
};
std::vector<ModuleRow> module_rows(const Run& run, const RowFilter& filter);

Json to_json(const OpRow& row, double step_total_ns);
Json to_json(const KernelRow& row, double device_total_ns);
Json to_json(const ModuleRow& row);

}  // namespace triptych::insight
