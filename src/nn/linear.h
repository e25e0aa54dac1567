#pragma once

// Linear layers and their low-rank adapters.
//
// T tokens   I in   O out   R adapter rank

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "nn/parameter_builder.h"
#include "parallel/parameter.h"

namespace triptych {

/// How a weight [O, I] lies over the mesh axis "tensor". Source: Megatron-LM, arXiv:1909.08053; the
/// token-split form arXiv:2205.05198.
struct LinearSplit {
  enum class Kind : uint8_t {
    kNone,     ///< whole on every rank, which all compute the same from the same tokens
    kBetween,  ///< whole on every rank, between matrices: where the model splits tokens, what
               ///< follows uses another part of them on each, which finds a part of the gradients
    kColumn,   ///< rows (outputs) split: takes all tokens (TensorRegion::enter), gives its outputs
    kRow,      ///< columns (inputs) split: the ranks' results are summed; each goes on with its own
               ///< tokens where the model splits them, else with all
    kRowToWhole,  ///< the same, and every rank goes on with all tokens
  };
  Kind kind = Kind::kNone;
  int64_t unit = 1;      ///< outputs (inputs) that are never parted: a head's
  int64_t sections = 1;  ///< as Placement::Split::sections; columns only

  static LinearSplit none() { return {}; }
  static LinearSplit between() { return {.kind = Kind::kBetween}; }
  static LinearSplit column(int64_t unit = 1, int64_t sections = 1) {
    return {.kind = Kind::kColumn, .unit = unit, .sections = sections};
  }
  static LinearSplit row(int64_t unit = 1) { return {.kind = Kind::kRow, .unit = unit}; }
  static LinearSplit row_to_whole(int64_t unit = 1) {
    return {.kind = Kind::kRowToWhole, .unit = unit};
  }

  bool is_row() const { return kind == Kind::kRow || kind == Kind::kRowToWhole; }
};

/// Of a linear layer's parameters, adapter included (docs/spec/parallelism.md, 2.2.6).
struct LinearPlacement {
  Placement weight, bias, lora_a, lora_b;
};
LinearPlacement placement_of(const LinearSplit& split, const ModelGroups& groups);

/// A low-rank adapter beside a linear layer: y += scale * B(A(dropout(x))).
/// Source: LoRA, arXiv:2106.09685; file format and casts as peft's.
struct Lora {
  ParameterPtr a_RI;  ///< `<module>.lora_A.weight`
  ParameterPtr b_OR;  ///< `<module>.lora_B.weight`
  double scale = 1;
  double dropout = 0;
  uint64_t site = 0;  ///< which adapter this is: part of the key of its dropout
};

/// y = x W^T + b for a weight of [O, ...], its other dims joined. Where the weight's gradients may
/// be put off (Parameter::weight_gradients), backward gives the input's gradient at once and leaves
/// the product for the weight's to the schedule; both ways give the same bits.
/// @param bias_O  may be undefined.
at::Tensor linear(const at::Tensor& x_TI, const Parameter& weight, const at::Tensor& bias_O = {});

/// y = x W^T + b. On one tensor rank a single matrix product; on several, each computes what
/// `LinearSplit` says. The bias of a row-split layer is added once, after the sum.
class Linear {
 public:
  /// @param path  module path on the hub; the parameters are `<path>.weight` and `<path>.bias`.
  /// @param bias_init  zero in the reference's initialisation.
  Linear(ParameterBuilder& builder, std::string path, const std::string& part, int64_t in,
         int64_t out, bool bias, const LinearSplit& split, double init_std);
  Linear(const Linear&) = delete;
  Linear& operator=(const Linear&) = delete;

  /// @param x_TI  any leading dims.
  /// @param dropout_keys_T  int64, one key a token (nn/dropout.h); only read by an adapter with
  /// dropout.
  ///                        Undefined: no dropout, as in evaluation.
  at::Tensor forward(const at::Tensor& x_TI, const at::Tensor& dropout_keys_T = {}) const;

  const std::string& path() const { return path_; }
  const std::string& part() const { return part_; }
  const LinearSplit& split() const { return split_; }
  const ModelGroups& groups() const { return groups_; }
  int64_t in() const { return in_; }  ///< of the whole matrix
  int64_t out() const { return out_; }

  ParameterPtr weight, bias;  ///< bias may be null
  std::optional<Lora> lora;

 private:
  at::Tensor with_adapter(const at::Tensor& y_TO, const at::Tensor& x_TI,
                          const at::Tensor& dropout_keys_T) const;

  std::string path_, part_;
  int64_t in_, out_;
  LinearSplit split_;
  ModelGroups groups_;
};

}  // namespace triptych
