#include "train/matrix_peak.h"

#include <ATen/DeviceAccelerator.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/rand.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>

#include "base/clock.h"
#include "base/memory.h"
#include "kernels/memory_scope.h"

namespace triptych {

void synchronize(at::Device device) {
  if (!device.is_cpu()) at::accelerator::synchronizeDevice(device.index());
}

double measure_matrix_peak(at::Device device, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  const MemoryScope memory(MemoryPhase::kOther, MemoryKind::kTemporary, "(matrix peak)");
  const int64_t n = device.is_cpu() ? 2048 : 8192;
  const auto a = at::rand({n, n}, at::dtype(at::kFloat).device(device)).to(dtype);
  double best = 1e30;
  const double begin = steady_seconds();
  for (int i = 0; i < 8 && (i < 2 || steady_seconds() - begin < 0.2); ++i) {
    synchronize(device);
    const double start = steady_seconds();
    const auto product = at::matmul(a, a);
    synchronize(device);
    best = std::min(best, steady_seconds() - start);
  }
  return 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) / best;
}

int64_t peak_memory_bytes(at::Device device) {
  if (device.is_cpu()) return static_cast<int64_t>(peak_resident_bytes());
  const auto stats = at::accelerator::getDeviceStats(device.index());
  return stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)]
      .peak;
}

int64_t device_memory_bytes(at::Device device) {
  if (device.is_cpu()) return static_cast<int64_t>(total_memory_bytes());
  return static_cast<int64_t>(at::accelerator::getMemoryInfo(device.index()).second);
}

}  // namespace triptych
