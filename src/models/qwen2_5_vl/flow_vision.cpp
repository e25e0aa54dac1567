// The fields of the vision tower.

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "base/error.h"
#include "models/qwen2_5_vl/fields.h"
#include "models/qwen2_5_vl/flow_parts.h"
#include "nn/dropout.h"

namespace triptych::qwen2_5_vl {

Media::Media(const VisionOptions& options) : M_(options.cell_patches()), F_(options.patch_dim()) {}

void Media::add(Medium medium) {
  medium.first_cell = cells_;
  cells_ += medium.grid.patches() / M_;
  list_.push_back(medium);
}

Media::Media(std::span<const SampleView> samples, const VisionOptions& options) : Media(options) {
  for (const auto& sample : samples) {
    int64_t patches = 0;  // of the sample
    for (const auto& medium : sample.media) {
      require(medium.rows.empty() ||
                  static_cast<int64_t>(medium.rows.size()) == medium.grid.patches() * F_,
              "grid ", medium.grid.t, " x ", medium.grid.h, " x ", medium.grid.w, " needs ", F_,
              " values a patch, got ", medium.rows.size(), " values");
      add({medium.grid, medium.rows, sample.index, patches});
      patches += medium.grid.patches();
    }
  }
}

at::Tensor Media::pixels(const std::vector<int64_t>& cells, int64_t P) const {
  for (const auto& medium : list_) {
    require(!medium.rows.empty(), "a picture or video of sample ", medium.sample, " has no pixels");
  }
  auto pixels_PF = at::empty({P, F_}, at::kFloat);
  auto* out = pixels_PF.mutable_data_ptr<float>();
  auto* const end = out + pixels_PF.numel();
  for (size_t i = 0; i < cells.size();) {
    const auto& medium = of_cell(cells[i]);
    size_t next = i + 1;  // neighbours of one medium are copied in one go
    while (next < cells.size() && cells[next] == cells[next - 1] + 1 &&
           &of_cell(cells[next]) == &medium)
      ++next;
    const auto* from = medium.rows.data() + (cells[i] - medium.first_cell) * M_ * F_;
    out = std::copy(from, from + static_cast<int64_t>(next - i) * M_ * F_, out);
    i = next;
  }
  std::fill(out, end, 0.0F);
  return pixels_PF;
}

at::Tensor Media::dropout_keys(const std::vector<int64_t>& cells, int64_t P,
                               const FlowSettings::DropoutKey& key) const {
  auto keys = at::zeros({P}, at::kLong);
  auto* out = keys.mutable_data_ptr<int64_t>();
  for (const auto cell : cells) {
    const auto& medium = of_cell(cell);
    const int64_t first = medium.first_patch + (cell - medium.first_cell) * M_;
    for (int64_t i = 0; i < M_; ++i) {
      *out++ = dropout_key(key.seed, key.step, medium.sample,
                           static_cast<uint64_t>(first + i) | (uint64_t{1} << 63));
    }
  }
  return keys;
}

const Media::Medium& Media::of_cell(int64_t cell) const {
  const auto after = std::upper_bound(list_.begin(), list_.end(), cell,
                                      [](int64_t c, const auto& m) { return c < m.first_cell; });
  return *(after - 1);
}

namespace {

/// Adds cells at the end, in a window and a frame of their own; no feature is taken from them.
void pad_cells(VisionShare& share, int64_t M, const ModelGroups& groups) {
  auto& index = share.index;
  const auto cells = static_cast<int64_t>(index.window_index.size());
  const int64_t more = padding(cells, groups);
  if (more == 0) return;
  for (int64_t c = cells; c < cells + more; ++c) index.window_index.push_back(c);
  index.cu_window_seqlens.push_back((cells + more) * M);
  // where ranks exchange heads, padding stays out of it
  if (share.split != VisionSplit::kWindows) index.cu_seqlens.push_back((cells + more) * M);
  for (auto* positions : {&index.rows, &index.columns})
    positions->resize(static_cast<size_t>((cells + more) * M), 0);
}

}  // namespace

void add_vision(Flow& flow, const VisionOptions& options, const Media& media, VisionShare share,
                const FlowSettings& settings, const at::Tensor& pixels_PF) {
  const int64_t M = options.cell_patches();
  pad_cells(share, M, settings.groups);
  const auto& index = share.index;
  const auto P = static_cast<int64_t>(index.rows.size());
  if (pixels_PF.defined()) {
    flow.set(field::kPixels, at::constant_pad_nd(pixels_PF, {0, 0, 0, P - pixels_PF.size(0)}));
  } else if (settings.pixels) {
    const auto type = at::TensorOptions(settings.device).dtype(settings.dtype);
    flow.set(field::kPixels,
             settings.device.is_meta()
                 ? at::empty({P, options.patch_dim()}, type)
                 : media.pixels(share.cells, P).to(settings.device, settings.dtype));
  }

  // Half of the head dim turns with the row, half with the column; the tables follow the windows'
  // order.
  const auto inv_freq = inverse_frequencies(options.rope_theta, options.head_dim() / 2);
  const auto half = at::cat({angles(index.rows, inv_freq), angles(index.columns, inv_freq)}, 1);
  const auto window_index = host_tensor(index.window_index);
  const auto in_windows = [&](const at::Tensor& x) {  // [P, n]
    return x.reshape({P / M, M * x.size(1)}).index_select(0, window_index).reshape(x.sizes());
  };
  const auto ordered = in_windows(half);
  const auto angles_PK = at::cat({ordered, ordered}, 1);
  flow.set(field::kVisionCos, at::cos(angles_PK).to(settings.device));
  flow.set(field::kVisionSin, at::sin(angles_PK).to(settings.device));
  flow.set(field::kWindowIndex, index_tensor(window_index, settings.device));
  flow.set(field::kReverseIndex, index_tensor(host_tensor(index.reverse_index), settings.device));
  flow.set(field::kWindowBounds, host_tensor(index.cu_window_seqlens));
  flow.set(field::kFrameBounds, host_tensor(index.cu_seqlens));
  if (share.split == VisionSplit::kWindows)
    flow.set(field::kRankPatches, host_tensor(share.rank_patches));

  if (settings.dropout) {
    const auto keys = media.dropout_keys(share.cells, P, *settings.dropout);
    flow.set(field::kVisionDropoutKeys,
             index_tensor(in_windows(keys.unsqueeze(1)).squeeze(1), settings.device));
  }
}

}  // namespace triptych::qwen2_5_vl
