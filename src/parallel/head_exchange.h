#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "parallel/group.h"

namespace triptych {

/// Which heads each rank of a Ulysses group computes: query heads in consecutive ranges as equal as
/// can be, and the key/value heads that these query heads read. A key/value head may go to several
/// ranks; a rank may have no head at all.
class HeadSplit {
 public:
  /// @param query_heads, key_value_heads  those that a rank holds before the exchange.
  HeadSplit(int64_t query_heads, int64_t key_value_heads, int64_t ranks);

  struct Range {
    int64_t begin = 0, end = 0;
    int64_t size() const { return end - begin; }
  };
  int64_t ranks() const { return static_cast<int64_t>(queries_.size()); }
  int64_t query_heads() const { return query_heads_; }
  int64_t key_value_heads() const { return key_value_heads_; }
  Range queries(int64_t rank) const { return queries_[rank]; }
  Range keys(int64_t rank) const { return keys_[rank]; }
  /// Heads in one token of what is sent to `rank`: its queries, keys and values.
  int64_t sent_heads(int64_t rank) const { return queries_[rank].size() + 2 * keys_[rank].size(); }
  /// The local key/value head of each local query head, where they are not grouped evenly; else
  /// empty.
  std::vector<int64_t> uneven_groups(int64_t rank) const;

 private:
  int64_t query_heads_, key_value_heads_;
  std::vector<Range> queries_, keys_;
};

struct HeadShare {
  at::Tensor q, k, v;  ///< [S, own heads, K]; H a multiple of G; strides free
};

/// Ulysses: from all heads of this rank's tokens to this rank's heads of all tokens, in one
/// all-to-all. Backward is its mirror image; gradients of a key/value head that went to several
/// ranks are added at home, in the order of ranks.
///
/// @param q_THK  [T, H, K];  @param k_TGK, v_TGK  [T, G, K].
/// @param tokens  T of every rank of the group; may differ, may be 0.
/// @return        tokens of all ranks, one rank's behind the other's.
/// Source: DeepSpeed-Ulysses, arXiv:2309.14509.
HeadShare scatter_heads(const at::Tensor& q_THK, const at::Tensor& k_TGK, const at::Tensor& v_TGK,
                        const std::vector<int64_t>& tokens, Group& group);

/// The way back for attention's output: from this rank's heads of all tokens to all heads of its
/// tokens. @param o_SHK  [S, own heads, K]; @param query_heads  H of all ranks. @return [T, H, K].
at::Tensor gather_heads(const at::Tensor& o_SHK, int64_t query_heads,
                        const std::vector<int64_t>& tokens, Group& group);

}  // namespace triptych
