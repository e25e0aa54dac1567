#include "kernels/adamw.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>

#include "base/error.h"
#include "kernels/cpu/kernels.h"
#include "kernels/dispatch.h"
#include "kernels/reference.h"

namespace triptych {
namespace {

constexpr int64_t kBlock = int64_t{1} << 16;  // elements of one piece of work

void check(const AdamWTensor& t) {
  const int64_t n = t.weight.numel();
  require(t.weight.is_contiguous() && t.exp_avg.is_contiguous() && t.exp_avg_sq.is_contiguous() &&
              t.grad.is_contiguous(),
          "adamw: tensors must be contiguous");
  require(t.exp_avg.numel() == n && t.exp_avg_sq.numel() == n &&
              t.exp_avg.scalar_type() == at::kFloat && t.exp_avg_sq.scalar_type() == at::kFloat,
          "adamw: moments must be fp32 with the weight's ", n, " elements");
  require(t.rows.defined() || t.grad.numel() == n, "adamw: ", t.grad.numel(), " gradients for ", n,
          " weights");
  require(!t.low.defined() || (t.weight.scalar_type() == at::kBFloat16 &&
                               t.low.scalar_type() == at::kShort && t.low.numel() == n),
          "adamw: the low half belongs to a bf16 weight of the same size");
  require(t.low.defined() || t.master.defined() || t.weight.scalar_type() == at::kFloat,
          "adamw: a ", t.weight.scalar_type(), " weight needs a master");
  if (t.rows.defined()) {
    require(t.weight.dim() == 2 && t.grad.numel() == t.rows.numel() * t.weight.size(1) &&
                t.touched.defined() && t.touched.numel() == t.weight.size(0),
            "adamw: ", t.rows.numel(), " rows, gradient ", t.grad.sizes(), ", weight ",
            t.weight.sizes());
  }
}

cpu::AdamWCoefficients coefficients(const AdamWTensor& t, const AdamWStep& s) {
  return {
      .decay = static_cast<float>(1 - s.learning_rate * t.weight_decay),
      .one_minus_beta1 = static_cast<float>(1 - s.beta1),
      .beta2 = static_cast<float>(s.beta2),
      .one_minus_beta2 = static_cast<float>(1 - s.beta2),
      .inverse_sqrt_correction2 = static_cast<float>(1 / std::sqrt(1 - std::pow(s.beta2, s.step))),
      .eps = static_cast<float>(s.eps),
      .step_size = static_cast<float>(s.learning_rate / (1 - std::pow(s.beta1, s.step))),
      .grad_scale = static_cast<float>(s.grad_scale)};
}

cpu::AdamWRange range_at(const AdamWTensor& t, int64_t first) {
  cpu::AdamWRange range;
  if (t.weight.scalar_type() == at::kBFloat16) {
    range.weight = write<cpu::Bf16>(t.weight) + first;
    if (t.low.defined()) {
      range.low = t.low.mutable_data_ptr<int16_t>() + first;
    } else {
      range.master = write<float>(t.master) + first;
    }
  } else {
    range.master = write<float>(t.weight) + first;
  }
  range.exp_avg = write<float>(t.exp_avg) + first;
  range.exp_avg_sq = write<float>(t.exp_avg_sq) + first;
  return range;
}

void update(const AdamWTensor& t, const cpu::AdamWCoefficients& c, int64_t grad_at, int64_t first,
            int64_t n, bool has_grad) {
  if (t.grad.scalar_type() == at::kBFloat16) {
    cpu::kernels().bf16.adamw(has_grad ? read<cpu::Bf16>(t.grad) + grad_at : nullptr,
                              range_at(t, first), n, c);
  } else {
    cpu::kernels().fp32.adamw(has_grad ? read<float>(t.grad) + grad_at : nullptr,
                              range_at(t, first), n, c);
  }
}

/// Rows [begin, end) of an embedding: those with a gradient, those with old moments, and the rest,
/// which at most decays; its moments stay zero and their pages untouched.
void update_rows(const AdamWTensor& t, const cpu::AdamWCoefficients& c, int64_t begin,
                 int64_t end) {
  const int64_t D = t.weight.size(1), n = t.rows.numel();
  const auto* rows = t.rows.const_data_ptr<int64_t>();
  auto* touched = t.touched.mutable_data_ptr<uint8_t>();
  const int64_t* next = std::lower_bound(rows, rows + n, begin);
  std::vector<float> zero_m(D), zero_v(D);
  for (int64_t row = begin; row < end; ++row) {
    const bool has_grad = next < rows + n && *next == row;
    if (has_grad) touched[row] = 1;
    if (touched[row] != 0) {
      update(t, c, has_grad ? (next - rows) * D : 0, row * D, D, has_grad);
    } else if (c.decay != 1) {
      auto range = range_at(t, row * D);
      range.exp_avg = zero_m.data();
      range.exp_avg_sq = zero_v.data();
      cpu::kernels().fp32.adamw(nullptr, range, D, c);
    }
    if (has_grad) ++next;
  }
}

}  // namespace

void adamw(std::span<const AdamWTensor> tensors, const AdamWStep& step) {
  // One list of pieces over all tensors, so that small tensors do not each wake the threads.
  struct Piece {
    const AdamWTensor* tensor;
    cpu::AdamWCoefficients c;
    int64_t begin, end;
  };
  std::vector<Piece> pieces;
  for (const auto& t : tensors) {
    check(t);
    if (t.weight.is_meta()) continue;  // in place: nothing is allocated
    if (!t.weight.is_cpu() ||
        (t.grad.scalar_type() != at::kBFloat16 && t.grad.scalar_type() != at::kFloat)) {
      reference::adamw(t, step);
      continue;
    }
    const auto c = coefficients(t, step);
    const int64_t n = t.rows.defined() ? t.weight.size(0) : t.weight.numel();
    const int64_t size = t.rows.defined()
                             ? std::max<int64_t>(1, kBlock / std::max<int64_t>(1, t.weight.size(1)))
                             : kBlock;
    for (int64_t begin = 0; begin < n; begin += size)
      pieces.push_back({&t, c, begin, std::min(begin + size, n)});
  }
  at::parallel_for(0, static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto& p = pieces[i];
      if (p.tensor->rows.defined()) {
        update_rows(*p.tensor, p.c, p.begin, p.end);
      } else {
        update(*p.tensor, p.c, p.begin, p.begin, p.end - p.begin, true);
      }
    }
  });
}

SplitMaster split_master(const at::Tensor& master) {
  const auto bits = master.contiguous().view(at::kInt).to(at::kLong).bitwise_and(0xffffffffLL);
  // Half a unit up, then cut: ties away from zero. A NaN that would overflow becomes the quiet NaN.
  const auto magnitude = bits.bitwise_and(0x7fffffffLL);
  const auto safe = at::where(magnitude.ge(0x7fff8000LL),
                              bits.bitwise_and(0x80000000LL).bitwise_or(0x7fc00000LL), bits);
  const auto upper = (safe + 0x8000).bitwise_right_shift(16).bitwise_and(0xffff);
  const auto low = safe.bitwise_and(0xffff);
  const auto to_short = [](const at::Tensor& x) {
    return at::where(x.ge(0x8000), x - 0x10000, x).to(at::kShort);
  };
  return {to_short(upper).view(at::kBFloat16), to_short(low)};
}

at::Tensor join_master(const at::Tensor& weight, const at::Tensor& low) {
  const auto upper = weight.contiguous().view(at::kShort).to(at::kLong).bitwise_and(0xffff);
  const auto bits = (upper * 0x10000 + low.to(at::kLong)).bitwise_and(0xffffffffLL);
  return at::where(bits.ge(0x80000000LL), bits - 0x100000000LL, bits).to(at::kInt).view(at::kFloat);
}

double sum_of_squares(std::span<const at::Tensor> tensors) {
  double total = 0;
  for (const auto& given : tensors) {
    if (given.is_meta()) continue;
    const auto tensor = given.contiguous();
    if (!tensor.is_cpu() || !has_cpu_kernel(tensor)) {
      total += tensor.to(at::kDouble).square().sum().item<double>();
      continue;
    }
    const int64_t n = tensor.numel(), blocks = (n + kBlock - 1) / kBlock;
    std::vector<double> partial(blocks);
    with_element_type(tensor, [&](auto element) {
      using T = decltype(element);
      const auto kernel = cpu::typed<T>(cpu::kernels()).sum_of_squares;
      at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t b = begin; b < end; ++b)
          partial[b] = kernel(read<T>(tensor) + b * kBlock, std::min(kBlock, n - b * kBlock));
      });
    });
    for (const double part : partial) total += part;
  }
  return total;
}

void accumulate_(at::Tensor& main, const at::Tensor& grad) {
  require(main.scalar_type() == at::kFloat && main.sizes() == grad.sizes(),
          "accumulate: main gradient ", main.scalar_type(), " ", main.sizes(), ", gradient ",
          grad.sizes());
  const auto from = grad.contiguous();
  if (!main.is_cpu() || !main.is_contiguous() || !has_cpu_kernel(from)) {
    main.add_(from);
    return;
  }
  with_element_type(from, [&](auto element) {
    using T = decltype(element);
    const auto kernel = cpu::typed<T>(cpu::kernels()).accumulate;
    at::parallel_for(0, main.numel(), kBlock, [&](int64_t begin, int64_t end) {
      kernel(read<T>(from) + begin, end - begin, write<float>(main) + begin);
    });
  });
}

at::Tensor touched_rows(const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq) {
  return exp_avg.ne(0).any(1).logical_or_(exp_avg_sq.ne(0).any(1)).to(at::kByte);
}

}  // namespace triptych
