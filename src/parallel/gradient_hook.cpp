#include "parallel/gradient_hook.h"

#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <memory>

namespace triptych {

namespace {

class Hook : public torch::autograd::PostAccumulateGradHook {
 public:
  explicit Hook(std::function<void()> ready) : ready_(std::move(ready)) {}
  void operator()(const torch::autograd::Variable& /*parameter*/) override { ready_(); }

 private:
  std::function<void()> ready_;
};

}  // namespace

void set_gradient_hook(const at::Tensor& parameter, std::function<void()> ready) {
  torch::autograd::impl::set_post_acc_grad_hooks(
      parameter, ready ? std::make_unique<Hook>(std::move(ready)) : nullptr);
}

}  // namespace triptych
