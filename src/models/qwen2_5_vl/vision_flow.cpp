// From the pictures and videos of samples to what the vision tower reads.
//
// P patches   F values of a patch   K head dim   C cells of M patches

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "base/error.h"
#include "models/qwen2_5_vl/fields.h"
#include "models/qwen2_5_vl/flow_parts.h"
#include "models/qwen2_5_vl/vision_share.h"
#include "parallel/group.h"
#include "parallel/row_exchange.h"
#include "parallel/work_share.h"

namespace triptych::qwen2_5_vl {

namespace {

using Lists = std::vector<std::vector<int64_t>>;

struct Medium {
  MediaGrid grid;
  std::span<const float> rows;  ///< empty for another rank's
  uint64_t sample = 0;
  int64_t first_patch = 0;  ///< in the sample
  int64_t first_cell = 0;   ///< among all
};

/// Where the cells of each picture or video of a micro-batch come from.
class Media {
 public:
  explicit Media(const VisionOptions& options)
      : M_(options.cell_patches()), F_(options.patch_dim()) {}

  Media(std::span<const SampleView> samples, const VisionOptions& options) : Media(options) {
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

  void add(Medium medium) {
    medium.first_cell = cells_;
    cells_ += medium.grid.patches() / M_;
    grids_.push_back(medium.grid);
    list_.push_back(medium);
  }

  int64_t cells() const { return cells_; }
  const std::vector<Medium>& list() const { return list_; }
  const std::vector<MediaGrid>& grids() const { return grids_; }

  /// Pixels of these cells [P, F], in their order; zeros behind them, up to P patches.
  at::Tensor pixels(const std::vector<int64_t>& cells, int64_t P) const {
    auto pixels_PF = at::empty({P, F_}, at::kFloat);
    auto* out = pixels_PF.mutable_data_ptr<float>();
    auto* const end = out + pixels_PF.numel();
    for (size_t i = 0; i < cells.size();) {
      const auto& medium = of_cell(cells[i]);
      require(!medium.rows.empty(), "sample ", medium.sample,
              ": the pixels of a picture are missing");
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

  /// Keys of adapter dropout of these cells' patches: of the sample, and of the patch's place among
  /// the sample's; zeros behind them, up to P patches.
  at::Tensor dropout_keys(const std::vector<int64_t>& cells, int64_t P,
                          const FlowSettings::DropoutKey& key) const {
    auto keys = at::zeros({P}, at::kLong);
    auto* out = keys.mutable_data_ptr<int64_t>();
    for (const auto cell : cells) {
      const auto& medium = of_cell(cell);
      const int64_t first = medium.first_patch + (cell - medium.first_cell) * M_;
      for (int64_t i = 0; i < M_; ++i) {
        *out++ =
            token_key(key, static_cast<uint64_t>(first + i) | (uint64_t{1} << 63), medium.sample);
      }
    }
    return keys;
  }

 private:
  const Medium& of_cell(int64_t cell) const {
    const auto after = std::upper_bound(list_.begin(), list_.end(), cell,
                                        [](int64_t c, const auto& m) { return c < m.first_cell; });
    return *(after - 1);
  }

  int64_t M_, F_, cells_ = 0;
  std::vector<Medium> list_;
  std::vector<MediaGrid> grids_;
};

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

/// Everything that the tower reads but pixels. @pre the cells are padded
void add_index(Flow& flow, const VisionOptions& options, const Media& media,
               const VisionShare& share, const FlowSettings& settings) {
  const int64_t M = options.cell_patches();
  const auto& index = share.index;
  const auto P = static_cast<int64_t>(index.rows.size());
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
  flow.set(field::kWindowIndex, window_index.to(settings.device));
  flow.set(field::kReverseIndex, host_tensor(index.reverse_index).to(settings.device));
  flow.set(field::kWindowBounds, host_tensor(index.cu_window_seqlens));
  flow.set(field::kFrameBounds, host_tensor(index.cu_seqlens));
  if (share.split == VisionSplit::kWindows)
    flow.set(field::kRankPatches, host_tensor(share.rank_patches));

  if (settings.dropout) {
    const auto keys = media.dropout_keys(share.cells, P, *settings.dropout);
    flow.set(field::kVisionDropoutKeys,
             in_windows(keys.unsqueeze(1)).squeeze(1).to(settings.device));
  }
}

/// How features reach the ranks whose tokens they are. Returns the row of each own placeholder's.
std::vector<int64_t> add_route(Flow& flow, const VisionShare& vision, const Lists& needed,
                               int64_t cells, int64_t rank, const FlowSettings& settings) {
  const auto plan = plan_route(vision.held, needed, cells, rank);
  flow.set(field::kRouteRows, host_tensor(plan.rows).to(settings.device));
  flow.set(field::kRouteSend, host_tensor(plan.send));
  flow.set(field::kRouteReceive, host_tensor(plan.receive));
  return plan.arrival;
}

/// The pictures of all data ranks' micro-batches of one number. Members of one data rank (context
/// ranks) have the same samples; the first of them speaks for its media.
struct Pool {
  Media media;                   ///< without pixels
  Lists needed;                  ///< cells among each member's tokens
  std::vector<int64_t> sibling;  ///< the first member of each member's data rank
  std::vector<int64_t> speaker;  ///< the member that owns each medium
  int64_t own_first_cell = 0;    ///< of this member's samples
};

/// Each member says: global rank of the first of its data rank, how many media it speaks for, of
/// each t, h, w, sample, first patch; then the cells that it needs, numbered in its samples.
std::vector<int64_t> statement(const Media& own, const std::vector<int64_t>& needed,
                               int64_t first_of_data_rank, bool speaks) {
  std::vector<int64_t> list{first_of_data_rank,
                            speaks ? static_cast<int64_t>(own.list().size()) : 0};
  if (speaks) {
    for (const auto& m : own.list())
      list.insert(list.end(),
                  {m.grid.t, m.grid.h, m.grid.w, static_cast<int64_t>(m.sample), m.first_patch});
  }
  list.insert(list.end(), needed.begin(), needed.end());
  return list;
}

Pool gather_pool(const Media& own, const std::vector<int64_t>& needed, const Options& options,
                 const FlowSettings& settings) {
  auto& group = *settings.groups.pictures;
  const auto own_rank = group.members()[static_cast<size_t>(group.rank())];
  const auto first =
      settings.groups.context_size() > 1 ? settings.groups.context->members().front() : own_rank;
  const auto lists =
      gather_lists(statement(own, needed, first, first == own_rank), group, settings.device);
  Pool pool{.media = Media(options.vision), .needed = {}, .sibling = {}, .speaker = {}};
  std::vector<int64_t> first_cell(lists.size(), 0);  // of the media a member speaks for
  for (size_t member = 0; member < lists.size(); ++member) {
    const auto* at = lists[member].data();
    const auto& members = group.members();
    pool.sibling.push_back(std::find(members.begin(), members.end(), at[0]) - members.begin());
    first_cell[member] = pool.media.cells();
    const int64_t count = at[1];
    at += 2;
    for (int64_t i = 0; i < count; ++i, at += 5) {
      pool.media.add({.grid = {.t = at[0], .h = at[1], .w = at[2]},
                      .rows = {},
                      .sample = static_cast<uint64_t>(at[3]),
                      .first_patch = at[4]});
      pool.speaker.push_back(static_cast<int64_t>(member));
    }
    pool.needed.emplace_back(at, lists[member].data() + lists[member].size());
  }
  for (size_t member = 0; member < lists.size(); ++member) {
    for (auto& cell : pool.needed[member])
      cell += first_cell[static_cast<size_t>(pool.sibling[member])];
  }
  pool.own_first_cell =
      first_cell[static_cast<size_t>(pool.sibling[static_cast<size_t>(group.rank())])];
  return pool;
}

/// Pixels of the cells that this rank's tower works on, from the ranks that read them.
at::Tensor exchange_pixels(const Pool& pool, const Media& own, const VisionShare& share,
                           const VisionOptions& options, int64_t P, const FlowSettings& settings) {
  auto& group = *settings.groups.pictures;
  // Whoever works on a cell of its own data rank has its pixels; else the speaker sends them.
  std::vector<int64_t> worker(static_cast<size_t>(pool.media.cells()));
  for (size_t member = 0; member < share.held.size(); ++member) {
    for (const auto cell : share.held[member])
      worker[static_cast<size_t>(cell)] = static_cast<int64_t>(member);
  }
  Lists sent(share.held.size());
  for (size_t i = 0; i < pool.media.list().size(); ++i) {
    const auto& medium = pool.media.list()[i];
    const int64_t end = medium.first_cell + medium.grid.patches() / options.cell_patches();
    for (int64_t cell = medium.first_cell; cell < end; ++cell) {
      const auto member = worker[static_cast<size_t>(cell)];
      const bool at_home = pool.sibling[static_cast<size_t>(member)] == pool.speaker[i];
      sent[static_cast<size_t>(at_home ? member : pool.speaker[i])].push_back(cell);
    }
  }
  const auto plan = plan_route(sent, share.held, pool.media.cells(), group.rank());
  auto mine = sent[static_cast<size_t>(group.rank())];
  for (auto& cell : mine) cell -= pool.own_first_cell;

  const at::NoGradGuard no_grad;
  const int64_t F = options.patch_dim(), M = options.cell_patches();
  const auto sent_PF =
      own.pixels(mine, static_cast<int64_t>(mine.size()) * M).to(settings.device, settings.dtype);
  const auto received_CF = route_rows(sent_PF.view({-1, M * F}),
                                      {.rows = host_tensor(plan.rows).to(settings.device),
                                       .send = plan.send,
                                       .receive = plan.receive},
                                      group)
                               .index_select(0, host_tensor(plan.arrival).to(settings.device));
  const auto pixels_PF = received_CF.view({-1, F});
  return at::constant_pad_nd(pixels_PF, {0, 0, 0, P - pixels_PF.size(0)});
}

std::vector<int64_t> all_cells(int64_t count) {
  std::vector<int64_t> cells(static_cast<size_t>(count));
  std::iota(cells.begin(), cells.end(), int64_t{0});
  return cells;
}

/// balance_vision = "data": whole pictures over the data and context ranks. All members take part
/// in every exchange, whatever they have.
std::vector<int64_t> add_shared_vision(Flow& flow, const Options& options, const Media& own,
                                       const std::vector<int64_t>& needed,
                                       const FlowSettings& settings) {
  const auto& group = *settings.groups.pictures;
  const auto pool = gather_pool(own, needed, options, settings);
  if (pool.media.cells() == 0) return {};
  auto share = share_vision(pool.media.grids(), options.vision, group.size(), group.rank(),
                            VisionContext::kPictures, BalanceVision::kData);
  auto places = add_route(flow, share, pool.needed, pool.media.cells(), group.rank(), settings);
  if (!settings.vision) return places;
  pad_cells(share, options.vision.cell_patches(), settings.groups);
  const auto P = static_cast<int64_t>(share.index.rows.size());
  if (settings.pixels)
    flow.set(field::kPixels, exchange_pixels(pool, own, share, options.vision, P, settings));
  add_index(flow, options.vision, pool.media, share, settings);
  return places;
}

}  // namespace

std::vector<int64_t> add_vision(Flow& flow, const Options& options,
                                std::span<const SampleView> samples, const Lists& needed,
                                const FlowSettings& settings) {
  const auto& groups = settings.groups;
  const Media media(samples, options.vision);
  if (groups.shares_pictures_over_data()) {
    return add_shared_vision(flow, options, media,
                             needed.empty() ? all_cells(media.cells())
                                            : needed[static_cast<size_t>(groups.context_rank())],
                             settings);
  }
  if (media.cells() == 0) return {};
  auto share = share_vision(media.grids(), options.vision, groups.context_size(),
                            groups.context_rank(), groups.vision_context, groups.balance_vision);
  std::vector<int64_t> places;
  if (share.split != VisionSplit::kNone)
    places = add_route(flow, share, needed, media.cells(), groups.context_rank(), settings);
  if (!settings.vision) return places;
  pad_cells(share, options.vision.cell_patches(), groups);
  if (settings.pixels) {
    const auto P = static_cast<int64_t>(share.index.rows.size());
    flow.set(field::kPixels, media.pixels(share.cells, P).to(settings.device, settings.dtype));
  }
  add_index(flow, options.vision, media, share, settings);
  return places;
}

}  // namespace triptych::qwen2_5_vl
