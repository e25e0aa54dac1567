#pragma once

// What other training suites do to a picture before the model's own processor sees it.

#include <cstdint>
#include <string_view>
#include <vector>

#include "data/media/image.h"
#include "data/media/qwen_vision.h"

namespace triptych {

/// One resize of the chain.
struct PreResizeStep {
  ImageSize to;
  bool nearest = false;   ///< NEAREST instead of Pillow's default, BICUBIC
  bool own_mode = false;  ///< in the file's mode, before the picture becomes RGB
};

/// The resizes that a picture of `size` goes through; empty for PreResize::kNone or when it fits.
/// Source: LLaMA-Factory 0.9.4 and MindSpeed-MM 2.2.0, `_preprocess_image`.
/// @throws DataError "origin: ..." when a side would become 0.
std::vector<PreResizeStep> pre_resize_steps(ImageSize size, PreResize rule,
                                            const PixelLimits& limits, std::string_view origin);

/// Applies all of `steps`, with the conversion to RGB at its place among them.
RgbImage pre_resize(Picture picture, const std::vector<PreResizeStep>& steps, AlphaRule alpha,
                    SimdLevel simd = simd_level());

}  // namespace triptych
