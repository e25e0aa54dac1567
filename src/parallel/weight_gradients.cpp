#include "parallel/weight_gradients.h"

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/csrc/autograd/variable.h>

#include <utility>

namespace triptych {

bool WeightGradients::put_off(Product product) {
  if (work_ != nullptr) {
    work_->push_back(std::move(product));
    return true;
  }
  if (most_waiting_ == 0) return false;
  if (waiting_.size() == most_waiting_) run_oldest();
  waiting_.push_back(std::move(product));
  return true;
}

void WeightGradients::run_oldest() {
  const auto product = std::move(waiting_.front());
  waiting_.pop_front();
  product();
}

void WeightGradients::run_waiting() {
  while (!waiting_.empty()) run_oldest();
}

void accumulate_gradient(const at::Tensor& parameter, at::Tensor gradient) {
  const at::NoGradGuard no_grad;
  const auto accumulate = torch::autograd::impl::grad_accumulator(parameter);
  torch::autograd::variable_list gradients;
  gradients.push_back(std::move(gradient));  // the only reference: the first is kept, not copied
  (*accumulate)(std::move(gradients));
}

}  // namespace triptych
