#include <ATen/ATen.h>

#include <cmath>

#include "kernels/reference.h"

namespace triptych::reference {

void adamw(const AdamWTensor& t, const AdamWStep& s) {
  const auto shape = t.weight.sizes();
  at::Tensor grad = t.grad.to(at::kFloat);
  if (t.rows.defined()) {
    grad = at::zeros(shape, t.weight.options().dtype(at::kFloat)).index_copy_(0, t.rows, grad);
    t.touched.index_fill_(0, t.rows, 1);
  }
  grad = grad.reshape(shape) * s.grad_scale;
  at::Tensor master = t.master.defined() ? t.master
                      : t.low.defined()  ? join_master(t.weight, t.low)
                                         : t.weight;
  master = master.view(shape);
  const double correction1 = 1 - std::pow(s.beta1, s.step),
               correction2 = 1 - std::pow(s.beta2, s.step);
  const auto m = t.exp_avg.view(shape), v = t.exp_avg_sq.view(shape);
  master.mul_(1 - s.learning_rate * t.weight_decay);
  m.lerp_(grad, 1 - s.beta1);
  v.mul_(s.beta2).addcmul_(grad, grad, 1 - s.beta2);
  const auto denominator = (v.sqrt() / std::sqrt(correction2)).add_(s.eps);
  master.addcdiv_(m, denominator, -s.learning_rate / correction1);
  if (t.low.defined()) {
    const auto [weight, low] = split_master(master);
    t.weight.copy_(weight);
    t.low.copy_(low);
  } else if (t.master.defined()) {
    t.weight.copy_(master);
  }
}

}  // namespace triptych::reference
