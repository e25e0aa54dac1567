#include <cstdlib>
#include <string_view>

#include "kernels/cpu/kernels.h"

namespace triptych::cpu {
namespace {

Isa detect() {
#ifdef TRIPTYCH_AVX512
  const char* wanted = std::getenv("TRIPTYCH_CPU");
  if (wanted != nullptr && std::string_view(wanted) == "portable") return Isa::kPortable;
  const bool all = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512bf16");
  if (all) return Isa::kAvx512;
#endif
  return Isa::kPortable;
}

}  // namespace

Isa isa() {
  static const Isa found = detect();
  return found;
}

const Kernels& kernels() {
#ifdef TRIPTYCH_AVX512
  if (isa() == Isa::kAvx512) return avx512::kKernels;
#endif
  return portable::kKernels;
}

}  // namespace triptych::cpu
