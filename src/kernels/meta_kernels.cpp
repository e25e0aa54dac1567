// The operators on the meta device: results and temporary tensors of the sizes that the kernels
// make, nothing computed. For the CPU those of its kernels, temporary ones included, and of the
// compositions where it has none. For accelerators norm, rotary, SwiGLU and attention are taken as
// one pass with the results alone; the vocabulary's projection with its loss is the composition,
// slab by slab, there as well.

#include "kernels/meta_kernels.h"

#include <ATen/ATen.h>
#include <ATen/ExpandUtils.h>
#include <ATen/WrapDimUtils.h>
#include <ATen/ops/add_native.h>
#include <torch/library.h>

#include "kernels/dispatch.h"
#include "kernels/linear_cross_entropy_cpu.h"
#include "kernels/meta_memory.h"
#include "kernels/reference.h"
#include "kernels/varlen_attention_cpu.h"

namespace triptych {
namespace {

using reference::Pair;
using reference::Triple;

at::Tensor like(const at::Tensor& x) { return at::empty(x.sizes(), x.options()); }
at::Tensor row_numbers(const at::Tensor& x) {  // fp32, one a row
  return at::empty(x.sizes().slice(0, x.dim() - 1), x.options().dtype(at::kFloat));
}

Pair rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (!has_cpu_kernel(x)) return reference::rms_norm(x, weight, eps);
  return {like(x), row_numbers(x)};
}

Triple add_rms_norm(const at::Tensor& x, const at::Tensor& /*r*/, const at::Tensor& /*weight*/,
                    double /*eps*/) {
  return {like(x), like(x), row_numbers(x)};
}

Pair rms_norm_backward(const at::Tensor& dy_, const at::Tensor& x, const at::Tensor& weight,
                       const at::Tensor& rstd, const std::optional<at::Tensor>& residual) {
  if (!has_cpu_kernel(x)) return reference::rms_norm_backward(dy_, x, weight, rstd, residual);
  const auto dy = dy_.contiguous();
  const auto dx = like(x);
  const int64_t D = x.size(-1), blocks = D > 0 ? (x.numel() / D + 63) / 64 : 0;
  const auto partial = at::empty({blocks, D}, x.options().dtype(at::kFloat));
  return {dx, partial.sum(0).to(weight.scalar_type())};
}

at::Tensor rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool inverse) {
  if (!has_cpu_kernel(x)) return reference::rotary(x, cos, sin, inverse);
  return like(x.stride(2) == 1 ? x : x.contiguous());
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& /*up*/) { return like(gate); }
Pair swiglu_backward(const at::Tensor& /*dy*/, const at::Tensor& gate, const at::Tensor& up) {
  return {like(gate), like(up)};
}
at::Tensor swiglu_packed_backward(const at::Tensor& /*dy*/, const at::Tensor& gate_up) {
  return like(gate_up);
}

Pair attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
               const at::Tensor& cu_queries, const at::Tensor& cu_keys, bool causal, double scale) {
  const bool fast = has_fast_attention(q, k, v);
  if (planning_cpu_kernels() && !fast)
    return reference::varlen_attention(q, k, v, cu_queries, cu_keys, causal, scale);
  const auto wide = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto out = like(q), lse = at::empty({q.size(0), q.size(1)}, q.options().dtype(wide));
  if (planning_cpu_kernels()) const auto packed = at::empty({2, k.numel()}, k.options());
  return {out, lse};
}

Triple attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                          const at::Tensor& v, const at::Tensor& out, const at::Tensor& lse,
                          const at::Tensor& cu_queries, const at::Tensor& cu_keys, bool causal,
                          double scale, bool wide) {
  if (planning_cpu_kernels() && !has_fast_attention(q, k, v)) {
    return reference::varlen_attention_backward(dout, q, k, v, out, lse, cu_queries, cu_keys,
                                                causal, scale, wide);
  }
  const auto options = q.options().dtype(wide ? lse.scalar_type() : q.scalar_type());
  const auto dq = at::empty(q.sizes(), options), dk = at::empty(k.sizes(), options),
             dv = at::empty(v.sizes(), options);
  if (planning_cpu_kernels()) const auto packed = at::empty({3, k.numel()}, k.options());
  return {dq, dk, dv};
}

using Results = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

Results whole_vocabulary(const at::Tensor& h, const at::Tensor& weight, const at::Tensor& labels,
                         const at::Tensor& token_weights, int64_t logits_bytes, bool want_dh,
                         bool want_dweight) {
  return meta_linear_cross_entropy(h, weight, labels, token_weights, logits_bytes, want_dh,
                                   want_dweight, nullptr);
}

// Operators of the library that have no C++ kernel for the meta device.
at::Tensor index_select(const at::Tensor& x, int64_t dim, const at::Tensor& index) {
  auto sizes = x.sizes().vec();
  sizes[static_cast<size_t>(at::maybe_wrap_dim(dim, x.dim()))] = index.numel();
  return at::empty(sizes, x.options());
}
at::Tensor where(const at::Tensor& condition, const at::Tensor& a, const at::Tensor& b) {
  const auto sizes = at::infer_size(at::infer_size(condition.sizes(), a.sizes()), b.sizes());
  return at::empty(sizes, a.options().dtype(at::result_type(a, b)).device(at::kMeta));
}

// With indices on the host, which the library's own kernel refuses.
at::Tensor& index_add_(at::Tensor& self, int64_t /*dim*/, const at::Tensor& /*index*/,
                       const at::Tensor& /*source*/, const at::Scalar& /*alpha*/) {
  return self;
}
at::Tensor index_add(const at::Tensor& self, int64_t /*dim*/, const at::Tensor& /*index*/,
                     const at::Tensor& /*source*/, const at::Scalar& /*alpha*/) {
  return at::empty(self.sizes(), self.options());
}
at::Tensor index_copy(const at::Tensor& self, int64_t /*dim*/, const at::Tensor& /*index*/,
                      const at::Tensor& /*source*/) {
  return at::empty(self.sizes(), self.options());
}
at::Tensor& logical_out(const at::Tensor& a, const at::Tensor& b, at::Tensor& out) {
  out.resize_(at::infer_size(a.sizes(), b.sizes()));
  return out;
}
at::Tensor& abs_out(const at::Tensor& x, at::Tensor& out) {
  out.resize_(x.sizes());
  return out;
}

// The library's own take sums of rows and a dense tensor apart as if they had values: the gradient
// of an embedding that is the head as well.
at::Tensor add_rows(const at::Tensor& a, const at::Tensor& b, const at::Scalar& alpha) {
  if (a.is_sparse() && b.is_sparse()) return at::native::add_sparse(a, b, alpha);
  return like(a.is_sparse() ? b : a);
}
at::Tensor& add_rows_(at::Tensor& self, const at::Tensor& other, const at::Scalar& alpha) {
  return self.is_sparse() ? at::native::add_sparse_(self, other, alpha) : self;
}

}  // namespace

void replace_sparse_sums() {
  struct Silent : c10::WarningHandler {
    void process(const c10::Warning& /*says that a kernel is replaced*/) override {}
  } silent;
  const c10::WarningUtils::WarningHandlerGuard guard(&silent);
  static auto library = [] {
    torch::Library to(torch::Library::IMPL, "aten", c10::DispatchKey::SparseMeta, __FILE__,
                      __LINE__);
    to.impl("add.Tensor", add_rows);
    to.impl("add_.Tensor", add_rows_);
    return to;
  }();
}

Results meta_linear_cross_entropy(const at::Tensor& h, const at::Tensor& weight,
                                  const at::Tensor& labels, const at::Tensor& token_weights,
                                  int64_t logits_bytes, bool want_dh, bool want_dweight,
                                  const VocabularyPart* part) {
  const bool fast = planning_cpu_kernels() && has_fast_cross_entropy(h, weight);
  if (!fast) {
    return reference::linear_cross_entropy(h, weight, labels.to(at::kMeta),
                                           token_weights.to(at::kMeta), logits_bytes, want_dh,
                                           want_dweight, part);
  }
  const auto sizes = fast_cross_entropy_scratch(h.size(0), weight.size(0), h.size(1), logits_bytes);
  const auto bytes = h.options().dtype(at::kByte);
  const auto fp32 = h.options().dtype(at::kFloat);
  const auto packed = at::empty({sizes.packed_bytes}, bytes),
             logits = at::empty({sizes.logits_bytes}, bytes);
  if (part != nullptr) part->join(at::empty({h.size(0)}, fp32), at::empty({h.size(0)}, fp32));
  at::Tensor dh, dweight;
  if (want_dh) dh = like(h);
  if (want_dweight) dweight = like(weight);
  if (want_dh) const auto partial = at::empty({sizes.slabs, h.size(0), h.size(1)}, fp32).sum(0);
  return {at::empty({}, h.options().dtype(at::kDouble)), at::empty({h.size(0)}, fp32), dh, dweight};
}

TORCH_LIBRARY_IMPL(aten, Meta, m) {
  m.impl("abs.out", abs_out);
  m.impl("index_add", index_add);
  m.impl("index_add_", index_add_);
  m.impl("index_copy", index_copy);
  m.impl("index_select", index_select);
  m.impl("logical_and.out", logical_out);
  m.impl("logical_or.out", logical_out);
  m.impl("where.self", where);
}
TORCH_LIBRARY_IMPL(triptych, Meta, m) {
  m.impl("rms_norm", rms_norm);
  m.impl("add_rms_norm", add_rms_norm);
  m.impl("rms_norm_backward", rms_norm_backward);
  m.impl("rotary", rotary);
  m.impl("swiglu", swiglu);
  m.impl("swiglu_backward", swiglu_backward);
  m.impl("swiglu_packed_backward", swiglu_packed_backward);
  m.impl("varlen_attention", attention);
  m.impl("varlen_attention_backward", attention_backward);
  m.impl("linear_cross_entropy", whole_vocabulary);
}

}  // namespace triptych
