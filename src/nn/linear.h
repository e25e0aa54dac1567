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

/// How a weight [O, I] lies over the mesh axis "tensor": rows (outputs) split, columns (inputs)
/// split, or whole on every rank.
enum class LinearSplit { kNone, kColumn, kRow };

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

/// y = x W^T + b.
class Linear {
 public:
  /// @param path  module path on the hub; the parameters are `<path>.weight` and `<path>.bias`.
  /// @param bias_init  zero in the reference's initialisation.
  Linear(ParameterBuilder& builder, std::string path, const std::string& part, int64_t in,
         int64_t out, bool bias, LinearSplit split, double init_std);
  Linear(const Linear&) = delete;
  Linear& operator=(const Linear&) = delete;

  /// @param x_TI  any leading dims.
  /// @param dropout_keys_T  int64, one key a token (nn/dropout.h); only read by an adapter with
  /// dropout.
  ///                        Undefined: no dropout, as in evaluation.
  at::Tensor forward(const at::Tensor& x_TI, const at::Tensor& dropout_keys_T = {}) const;

  const std::string& path() const { return path_; }
  const std::string& part() const { return part_; }
  int64_t in() const { return in_; }
  int64_t out() const { return out_; }

  ParameterPtr weight, bias;  ///< bias may be null
  std::optional<Lora> lora;

 private:
  std::string path_, part_;
  int64_t in_, out_;
};

}  // namespace triptych
