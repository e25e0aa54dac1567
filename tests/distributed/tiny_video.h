#pragma once

#include <memory>

#include "data/sample.h"
#include "train/family.h"

namespace triptych {

/// The video transformer of the tests (video_transformer/model.h) as the trainer sees a family. A
/// sample's text is its tokens, its medium holds the latents, and each video token counts as one
/// label.
std::unique_ptr<Family> make_tiny_video();

/// Row `index` of its stream: one to three packed samples of very unequal lengths, single pictures
/// and videos.
Row tiny_video_row(int64_t index);

}  // namespace triptych
