#pragma once

#include <c10/core/Device.h>

#include "plan/recorded_work.h"

namespace triptych {

/// Rates of kernels on the shapes of a step, flop/s; 0 where the step has none.
struct KernelRates {
  double products = 0, attention_forward = 0, attention_backward = 0;
};

/// Runs what a step spends most flop on, as often as there is time for.
/// @param budget_s  for matrix products; as much again for attention
KernelRates measure_kernels(const RecordedWork& work, at::Device device, double budget_s);

/// Seconds from one short kernel to the next, started one by one.
double measure_launch(at::Device device);

}  // namespace triptych
