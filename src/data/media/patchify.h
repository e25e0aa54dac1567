#pragma once

// The last step of every processor: bytes to normalised floats in the order of the vision tower's
// patches. Private to this folder.

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "data/media/resize.h"

namespace triptych {

/// How a grey level becomes a float. The result depends on where the reference rounds.
enum class NormalizeRule {
  kPillow,  ///< (float(u * rescale) - mean) / std, each step rounded to float
  kTorch,   ///< (u - mean / rescale) / (std / rescale): rescaling folded into the other two
};

/// The float of every grey level, per channel: exact by construction.
struct NormalizeTable {
  std::array<std::array<float, 256>, 3> value;

  /// The same by arithmetic on 16 levels at once: level * scale rounded to float (through
  /// a division corrected to the last bit), then (x - mean) / std likewise. `exact` says whether
  /// that gives the table's bits for all 256 levels, else kernels must look up.
  struct Arithmetic {
    float divisor = 255, mean = 0, std = 1;
    bool exact = false;
  };
  std::array<Arithmetic, 3> arithmetic;

  NormalizeTable(const std::array<double, 3>& mean, const std::array<double, 3>& std,
                 double rescale, NormalizeRule rule);
};

struct PatchShape {
  int64_t patch = 14, merge = 2, temporal = 2;
  int64_t cell() const { return patch * merge; }
  int64_t dim() const { return 3 * temporal * patch * patch; }
};

/// Cuts one row of cells into patches and appends them to `rows`.
/// @param bands  the frames of one time step, each [cell(), width, 3] bytes; one band alone stands
/// for
///   all `temporal` frames (a still picture)
/// @param width  a multiple of cell()
void append_cell_row(std::span<const uint8_t* const> bands, int64_t width, const PatchShape& shape,
                     const NormalizeTable& table, SimdLevel simd, std::vector<float>& rows);

/// One instruction set's code for the two inner loops.
struct PatchKernels {
  /// [count] RGB pixels to three planes of bytes.
  void (*planes)(const uint8_t* rgb, int64_t count, uint8_t* r, uint8_t* g, uint8_t* b);
  /// `size` x `size` levels of one channel to floats, rows of `stride` bytes in, dense out. May
  /// read and write up to 16 elements beyond the last one.
  void (*levels)(const uint8_t* in, int64_t stride, int64_t size,
                 const NormalizeTable::Arithmetic& how, const float* table, float* out);
};
namespace detail {
extern const PatchKernels kPatchPortable, kPatchAvx2, kPatchAvx512;
}

}  // namespace triptych
