#include "parallel/weight_gradients.h"

#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/variable.h>

namespace triptych {

void accumulate_gradient(const at::Tensor& parameter, const at::Tensor& gradient) {
  torch::autograd::Engine::get_default_engine().execute(
      {torch::autograd::impl::gradient_edge(parameter)}, {gradient}, /*keep_graph=*/false,
      /*create_graph=*/false, /*accumulate_grad=*/true);
}

}  // namespace triptych
