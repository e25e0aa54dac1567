#include "train/verify_batches.h"

#include <ATen/ATen.h>

namespace triptych {

std::vector<int64_t> to_list(const at::Tensor& tensor) {
  const auto flat = tensor.to(at::kLong).contiguous().flatten();
  return {flat.const_data_ptr<int64_t>(), flat.const_data_ptr<int64_t>() + flat.numel()};
}

ReferenceBatches::ReferenceBatches(const std::filesystem::path& folder, const Json& manifest,
                                   const qwen2_5_vl::TokenIds& ids)
    : manifest_(manifest),
      ids_(ids),
      inputs_(SafetensorsFile::open(folder / "inputs.safetensors")),
      expected_(SafetensorsFile::open(folder / "expected.safetensors")) {}

ReferenceBatches::MediaSource ReferenceBatches::media_source(const std::string& batch) const {
  MediaSource source;
  const auto take = [&](const char* key) {
    return inputs_->find(batch + "." + key) ? input(batch + "." + key) : at::Tensor();
  };
  source.image_grids = take("image_grid_thw");
  source.image_rows = take("pixel_values");
  source.video_grids = take("video_grid_thw");
  source.video_rows = take("pixel_values_videos");
  source.seconds = take("second_per_grid_ts");
  if (source.video_grids.defined() && !source.seconds.defined()) {
    source.seconds = at::full({source.video_grids.size(0)},
                              manifest_.at("second_per_grid_ts").at(0).get<double>(), at::kFloat);
  }
  return source;
}

MediaPatches ReferenceBatches::next_medium(MediaSource& source, bool video) const {
  const auto& grids = video ? source.video_grids : source.image_grids;
  auto& number = video ? source.video : source.image;
  auto& row = video ? source.video_row : source.image_row;
  const auto grid = to_list(grids[number]);
  MediaPatches medium{.kind = video ? MediaKind::kVideo : MediaKind::kImage,
                      .grid = {grid[0], grid[1], grid[2]}};
  if (video) medium.seconds_per_grid = source.seconds[number].item<double>();
  const auto rows = (video ? source.video_rows : source.image_rows)
                        .narrow(0, row, medium.grid.patches())
                        .contiguous();
  medium.rows.assign(rows.const_data_ptr<float>(), rows.const_data_ptr<float>() + rows.numel());
  ++number;
  row += medium.grid.patches();
  return medium;
}

Sample ReferenceBatches::make_sample(const std::vector<int64_t>& ids,
                                     const std::vector<int64_t>& labels,
                                     MediaSource& source) const {
  Sample sample;
  sample.tokens.assign(ids.begin(), ids.end());
  sample.labels.assign(labels.begin(), labels.end());
  for (size_t i = 0; i < ids.size(); ++i) {
    const bool pad = ids[i] == ids_.image || ids[i] == ids_.video;
    if (pad && (i == 0 || ids[i - 1] != ids[i]))
      sample.media.push_back(next_medium(source, ids[i] == ids_.video));
  }
  return sample;
}

MicroBatch ReferenceBatches::batch(const std::string& name) const {
  auto source = media_source(name);
  const auto ids = input(name + ".input_ids"), mask = input(name + ".attention_mask").to(at::kBool);
  const bool labelled = inputs_->find(name + ".labels") != nullptr;
  const auto labels = labelled ? input(name + ".labels") : at::Tensor();
  MicroBatch result;
  for (int64_t row = 0; row < ids.size(0); ++row) {
    const auto valid = mask[row].nonzero().squeeze(1);
    const auto pick = [&](const at::Tensor& t) { return to_list(t[row].index_select(0, valid)); };
    result.rows.push_back(
        {{make_sample(pick(ids), labelled ? pick(labels) : std::vector<int64_t>{}, source)}});
  }
  return result;
}

at::Tensor ReferenceBatches::valid_rows(const std::string& name, const at::Tensor& values) const {
  const auto mask = input(name + ".attention_mask").to(at::kBool);
  // Values of other rows go to the comparison as they are, which names both shapes.
  if (values.dim() < 2 || values.sizes().slice(0, 2) != mask.sizes()) return values;
  return values.flatten(0, 1).index_select(0, mask.flatten().nonzero().squeeze(1));
}

}  // namespace triptych
