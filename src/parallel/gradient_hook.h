#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace triptych {

/// Calls `ready` each time autograd has added to `parameter.grad()`, on autograd's thread of that
/// device. One hook per tensor; an empty function takes it away. The hook lives with the tensor.
void set_gradient_hook(const at::Tensor& parameter, std::function<void()> ready);

}  // namespace triptych
