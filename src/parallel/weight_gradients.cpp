#include "parallel/weight_gradients.h"

#include <torch/csrc/autograd/engine.h>
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
  const at::NoGradGuard no_grad;  // a layer's forward may be running again
  const auto product = std::move(waiting_.front());
  waiting_.pop_front();
  product();
}

void WeightGradients::run_waiting() {
  while (!waiting_.empty()) run_oldest();
}

void accumulate_gradient(const at::Tensor& parameter, const at::Tensor& gradient) {
  torch::autograd::Engine::get_default_engine().execute(
      {torch::autograd::impl::gradient_edge(parameter)}, {gradient}, /*keep_graph=*/false,
      /*create_graph=*/false, /*accumulate_grad=*/true);
}

}  // namespace triptych
