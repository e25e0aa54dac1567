// Pictures that the data ranks share out: what they tell each other, and how pixels and features
// travel.
//
// P patches   F values of a patch   C cells of M patches

#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <span>

#include "models/qwen2_5_vl/fields.h"
#include "models/qwen2_5_vl/flow_parts.h"
#include "parallel/group.h"
#include "parallel/options.h"
#include "parallel/row_exchange.h"
#include "parallel/work_share.h"

namespace triptych::qwen2_5_vl {

std::vector<int64_t> add_route(Flow& flow, const VisionShare& vision,
                               const std::vector<std::vector<int64_t>>& needed, int64_t cells,
                               int64_t rank, const FlowSettings& settings) {
  const auto plan = plan_route(vision.held, needed, cells, rank);
  flow.set(field::kRouteRows, index_tensor(host_tensor(plan.rows), settings.device));
  flow.set(field::kRouteSend, host_tensor(plan.send));
  flow.set(field::kRouteReceive, host_tensor(plan.receive));
  return plan.arrival;
}

namespace {

using Lists = std::vector<std::vector<int64_t>>;

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

/// In a plan every data rank has what this one has.
Lists planned_statements(const Media& own, const Lists& needed, const Group& group,
                         std::span<const int64_t> siblings) {
  const auto& members = group.members();
  Lists lists(members.size());
  for (size_t first = 0; first < members.size(); ++first) {
    if (!lists[first].empty()) continue;  // of a data rank that has been
    for (size_t i = 0; i < siblings.size(); ++i) {
      const auto rank = members[first] + siblings[i] - siblings[0];
      const auto member = std::find(members.begin(), members.end(), rank) - members.begin();
      lists.at(static_cast<size_t>(member)) = statement(own, needed[i], members[first], i == 0);
    }
  }
  return lists;
}

Lists statements(const Media& own, const Lists& needed, const FlowSettings& settings) {
  auto& group = *settings.groups.pictures;
  const std::vector<int64_t> alone{group.members()[static_cast<size_t>(group.rank())]};
  const auto& siblings =
      settings.groups.context_size() > 1 ? settings.groups.context->members() : alone;
  if (settings.device.is_meta()) {
    auto lists = planned_statements(own, needed, group, siblings);
    const auto& longest =
        *std::max_element(lists.begin(), lists.end(),
                          [](const auto& a, const auto& b) { return a.size() < b.size(); });
    gather_lists(longest, group, settings.device);  // is counted
    return lists;
  }
  const auto mine = static_cast<size_t>(settings.groups.context_rank());
  return gather_lists(statement(own, needed[mine], siblings.front(), mine == 0), group,
                      settings.device);
}

Pool gather_pool(const Media& own, const Lists& needed, const Options& options,
                 const FlowSettings& settings) {
  auto& group = *settings.groups.pictures;
  const auto lists = statements(own, needed, settings);
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
                           const VisionOptions& options, const FlowSettings& settings) {
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
  const auto P = static_cast<int64_t>(mine.size()) * M;
  const auto type = at::TensorOptions(settings.device).dtype(settings.dtype);
  const auto sent_PF = settings.device.is_meta()
                           ? at::empty({P, F}, type)
                           : own.pixels(mine, P).to(settings.device, settings.dtype);
  const auto received_CF = route_rows(sent_PF.view({-1, M * F}),
                                      {.rows = host_tensor(plan.rows).to(settings.device),
                                       .send = plan.send,
                                       .receive = plan.receive},
                                      group)
                               .index_select(0, host_tensor(plan.arrival).to(settings.device));
  return received_CF.view({-1, F});
}

}  // namespace

std::vector<int64_t> add_shared_pictures(Flow& flow, const Options& options, const Media& own,
                                         const std::vector<std::vector<int64_t>>& needed,
                                         const FlowSettings& settings) {
  const auto& group = *settings.groups.pictures;
  const auto pool = gather_pool(own, needed, options, settings);
  if (pool.media.cells() == 0) return {};
  std::vector<MediaGrid> grids;
  for (const auto& medium : pool.media.list()) grids.push_back(medium.grid);
  auto share = share_vision(grids, options.vision, group.size(), group.rank(),
                            VisionContext::kPictures, BalanceVision::kData);
  auto places = add_route(flow, share, pool.needed, pool.media.cells(), group.rank(), settings);
  if (!settings.vision) return places;
  const auto pixels_PF =
      settings.pixels ? exchange_pixels(pool, own, share, options.vision, settings) : at::Tensor();
  add_vision(flow, options.vision, pool.media, std::move(share), settings, pixels_PF);
  return places;
}

}  // namespace triptych::qwen2_5_vl
