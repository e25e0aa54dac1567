#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "parallel/group.h"

namespace triptych {

/// Rows for other ranks, with gradient. Groups must outlive the graph; every rank of the group must
/// call the same exchanges, and on all of them or on none the input must require a gradient, also
/// where it has no rows.

/// `send` rows of x_RD for each member, in order; returns the rows received, by sender. Backward is
/// the same exchange with the two lists swapped.
at::Tensor exchange_rows(const at::Tensor& x_RD, const std::vector<int64_t>& send,
                         const std::vector<int64_t>& receive, Group& group);

/// Which rows go where. Row i of the result of `route_rows` is that of the i-th received one.
struct RowRoute {
  at::Tensor rows;                     ///< int64, device of x: rows to send, by destination
  std::vector<int64_t> send, receive;  ///< counts for and from each member
};

/// Copies rows to the ranks that need them; a row may go to several, or to none. Backward brings
/// the gradients home and adds those of one row, in the order of ranks.
at::Tensor route_rows(const at::Tensor& x_RD, const RowRoute& route, Group& group);

/// Changes the dim that ranks split: x is whole along `to` and this rank's part along `from`; the
/// result is whole along `from` and this rank's part along `to`. One all-to-all; backward switches
/// back. Source: dynamic sequence parallelism, arXiv:2403.10266.
///
/// @param from_sizes, to_sizes  size of every member's part along either dim; may differ, may be 0.
at::Tensor switch_dim(const at::Tensor& x, int64_t from, int64_t to,
                      const std::vector<int64_t>& from_sizes, const std::vector<int64_t>& to_sizes,
                      Group& group);

/// This rank's part of x along `dim`, where x is the same on all ranks. Backward gathers: every
/// rank gets the whole gradient.
at::Tensor split_dim(const at::Tensor& x, int64_t dim, const std::vector<int64_t>& sizes,
                     Group& group);

/// The whole of what ranks hold parts of along `dim`. Backward takes this rank's part: for what
/// every rank then computes alike.
at::Tensor gather_dim(const at::Tensor& x, int64_t dim, const std::vector<int64_t>& sizes,
                      Group& group);

/// The lists of all members, by place in the group; not differentiated. In a plan all have `mine`.
/// @param device  where the group communicates
std::vector<std::vector<int64_t>> gather_lists(const std::vector<int64_t>& mine, Group& group,
                                               at::Device device);

}  // namespace triptych
