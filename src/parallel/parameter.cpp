#include "parallel/parameter.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "base/error.h"
#include "parallel/group.h"

namespace triptych {

std::vector<Range> held_ranges(const Placement::Split& split, int64_t size, int64_t ranks,
                               int64_t rank) {
  require(size % (split.sections * split.unit) == 0, "a dim of ", size, " is not ", split.sections,
          " sections of whole units of ", split.unit);
  const int64_t section = size / split.sections, units = section / split.unit;
  Range of_section;
  if (units >= ranks) {
    of_section.start = units * rank / ranks * split.unit;
    of_section.length = units * (rank + 1) / ranks * split.unit - of_section.start;
  } else {
    require(ranks % units == 0, units, " units of ", split.unit, " cannot be shared by ", ranks,
            " ranks: neither number divides the other");
    of_section = {rank * units / ranks * split.unit, split.unit};
  }
  std::vector<Range> held;
  for (int64_t s = 0; s < split.sections; ++s) {
    held.push_back({s * section + of_section.start, of_section.length});
  }
  return held;
}

namespace {

at::Tensor take(const at::Tensor& whole, int64_t dim, const std::vector<Range>& ranges) {
  std::vector<at::Tensor> parts;
  for (const auto& range : ranges) parts.push_back(whole.narrow(dim, range.start, range.length));
  return parts.size() == 1 ? parts.front() : at::cat(parts, dim);
}

int64_t total(const std::vector<Range>& ranges) {
  int64_t sum = 0;
  for (const auto& range : ranges) sum += range.length;
  return sum;
}

}  // namespace

at::Tensor part_of(const Parameter& parameter, const at::Tensor& whole) {
  require(whole.sizes() == at::IntArrayRef(parameter.full_shape), "'", parameter.name, "' is ",
          at::IntArrayRef(parameter.full_shape), ", got ", whole.sizes());
  if (parameter.held.empty()) return whole;
  return take(whole, parameter.placement.split->dim, parameter.held);
}

at::Tensor gather_whole(const Parameter& parameter, const at::Tensor& part, Group* tensor) {
  if (parameter.held.empty() || tensor == nullptr || tensor->size() == 1) return part;
  const auto& split = *parameter.placement.split;
  const int64_t size = parameter.full_shape[static_cast<size_t>(split.dim)];
  const int64_t ranks = tensor->size();
  int64_t longest = 0;
  for (int64_t r = 0; r < ranks; ++r) {
    longest = std::max(longest, total(held_ranges(split, size, ranks, r)));
  }
  // The collective wants equal parts: the cut dim comes first and is padded to the longest.
  const auto rows = part.detach().movedim(split.dim, 0);
  auto sizes = rows.sizes().vec();
  sizes[0] = longest;
  const auto mine = at::zeros(sizes, part.options().requires_grad(false));
  mine.narrow(0, 0, rows.size(0)).copy_(rows);
  sizes.insert(sizes.begin(), ranks);
  const auto all = at::empty(sizes, mine.options());
  tensor->all_gather_into(all, mine, parameter.name);

  auto whole = at::empty(parameter.full_shape, mine.options());
  for (int64_t r = 0; r < ranks; ++r) {
    int64_t at = 0;
    for (const auto& range : held_ranges(split, size, ranks, r)) {
      whole.narrow(split.dim, range.start, range.length)
          .copy_(all[r].narrow(0, at, range.length).movedim(0, split.dim));
      at += range.length;
    }
  }
  return whole;
}

}  // namespace triptych
