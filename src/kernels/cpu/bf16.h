#pragma once

#include <cstdint>

namespace triptych::cpu {

/// Storage of a bfloat16 number. The CPU kernels include no libtorch header: code of its inline
/// functions compiled with AVX-512 flags could be chosen by the linker for the whole program.
struct Bf16 {
  uint16_t bits;
};

}  // namespace triptych::cpu
