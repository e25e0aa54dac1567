#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/safetensors.h"
#include "data/sample.h"
#include "models/qwen2_5_vl/options.h"

namespace triptych {

std::vector<int64_t> to_list(const at::Tensor& tensor);

/// Inputs and expected values of a folder made by tests/parity/make_qwen2_5_vl.py, as the batches
/// that layers take.
class ReferenceBatches {
 public:
  /// @param manifest  must outlive it
  ReferenceBatches(const std::filesystem::path& folder, const Json& manifest,
                   const qwen2_5_vl::TokenIds& ids);

  at::Tensor input(const std::string& name) const { return inputs_->read(name); }
  at::Tensor want(const std::string& name) const { return expected_->read(name); }
  bool has_input(const std::string& name) const { return inputs_->find(name) != nullptr; }
  bool has(const std::string& name) const { return expected_->find(name) != nullptr; }

  /// Media of one row of tokens, taken from the batch's pictures and videos in order.
  struct MediaSource {
    at::Tensor image_grids, image_rows, video_grids, video_rows, seconds;
    int64_t image = 0, image_row = 0, video = 0, video_row = 0;
  };

  MediaSource media_source(const std::string& batch) const;
  MediaPatches next_medium(MediaSource& source, bool video) const;

  /// One sample from unpadded ids and labels.
  Sample make_sample(const std::vector<int64_t>& ids, const std::vector<int64_t>& labels,
                     MediaSource& source) const;
  /// The rows of a padded batch without their padding.
  MicroBatch batch(const std::string& name) const;
  /// Expected values of the valid positions of a padded batch, one after another.
  at::Tensor valid_rows(const std::string& name, const at::Tensor& values) const;

 private:
  const Json& manifest_;
  qwen2_5_vl::TokenIds ids_;
  std::shared_ptr<SafetensorsFile> inputs_, expected_;
};

}  // namespace triptych
