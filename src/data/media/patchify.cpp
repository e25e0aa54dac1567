#include "data/media/patchify.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "base/error.h"

namespace triptych {
namespace {

/// Room for kernels that work on 16 elements whatever the size of a patch.
constexpr int64_t kSlack = 16;

/// What the vector kernels compute: both quotients through a reciprocal, corrected by the
/// remainder.
float by_arithmetic(int level, const NormalizeTable::Arithmetic& how) {
  const auto divide = [](float a, float b) {
    const float reciprocal = 1.0f / b, q = a * reciprocal;
    return std::fma(std::fma(-q, b, a), reciprocal, q);
  };
  return divide(divide(static_cast<float>(level), how.divisor) - how.mean, how.std);
}

const PatchKernels& patch_kernels(SimdLevel level) {
#if defined(__x86_64__)
  if (level == SimdLevel::kAvx512) return detail::kPatchAvx512;
  if (level == SimdLevel::kAvx2) return detail::kPatchAvx2;
#endif
  (void)level;
  return detail::kPatchPortable;
}

}  // namespace

NormalizeTable::NormalizeTable(const std::array<double, 3>& mean, const std::array<double, 3>& std,
                               double rescale, NormalizeRule rule) {
  const auto unscale = static_cast<float>(1.0 / rescale);
  for (size_t c = 0; c < 3; ++c) {
    auto& how = arithmetic[c];
    how = {
        .divisor = unscale, .mean = static_cast<float>(mean[c]), .std = static_cast<float>(std[c])};
    if (rule == NormalizeRule::kTorch) {
      how = {.divisor = 1, .mean = how.mean * unscale, .std = how.std * unscale};
    }
    how.exact = true;
    for (int level = 0; level < 256; ++level) {
      const float x = rule == NormalizeRule::kTorch ? static_cast<float>(level)
                                                    : static_cast<float>(level * rescale);
      value[c][level] = (x - how.mean) / how.std;
      how.exact = how.exact && by_arithmetic(level, how) == value[c][level];
    }
  }
}

namespace detail {
extern const PatchKernels kPatchPortable{
    .planes =
        [](const uint8_t* rgb, int64_t count, uint8_t* r, uint8_t* g, uint8_t* b) {
          for (int64_t i = 0; i < count; ++i) {
            r[i] = rgb[3 * i], g[i] = rgb[3 * i + 1], b[i] = rgb[3 * i + 2];
          }
        },
    .levels =
        [](const uint8_t* in, int64_t stride, int64_t size, const NormalizeTable::Arithmetic&,
           const float* table, float* out) {
          for (int64_t y = 0; y < size; ++y, in += stride) {
            for (int64_t x = 0; x < size; ++x) *out++ = table[in[x]];
          }
        }};
}  // namespace detail

void append_cell_row(std::span<const uint8_t* const> bands, int64_t width, const PatchShape& shape,
                     const NormalizeTable& table, SimdLevel simd, std::vector<float>& rows) {
  const auto& kernels = patch_kernels(simd);
  const int64_t P = shape.patch, frames = static_cast<int64_t>(bands.size());
  const int64_t plane = shape.cell() * width;  // one channel of one band
  const auto planes = std::make_unique_for_overwrite<uint8_t[]>(frames * 3 * plane + kSlack);
  for (int64_t f = 0; f < frames; ++f) {
    uint8_t* p = planes.get() + f * 3 * plane;
    kernels.planes(bands[f], plane, p, p + plane, p + 2 * plane);
  }

  // A patch is made in the nearest cache and then appended: the vector's memory is written once.
  std::vector<float> patch(shape.dim() + kSlack);
  const auto add_patch = [&](int64_t y, int64_t x) {
    float* out = patch.data();
    for (int64_t c = 0; c < 3; ++c) {
      const float* first = out;
      for (int64_t f = 0; f < shape.temporal; ++f, out += P * P) {
        if (f < frames) {
          kernels.levels(&planes[(f * 3 + c) * plane + y * width + x], width, P,
                         table.arithmetic[c], table.value[c].data(), out);
        } else {
          std::memcpy(out, first, P * P * sizeof(float));
        }
      }
    }
    rows.insert(rows.end(), patch.begin(), patch.end() - kSlack);
  };
  for (int64_t cell_x = 0; cell_x < width; cell_x += shape.cell()) {
    for (int64_t y = 0; y < shape.cell(); y += P) {
      for (int64_t x = cell_x; x < cell_x + shape.cell(); x += P) add_patch(y, x);
    }
  }
}

}  // namespace triptych
