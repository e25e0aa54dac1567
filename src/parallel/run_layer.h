#pragma once

#include "base/trace_scope.h"
#include "parallel/layer.h"

namespace triptych {

/// `layer.forward(flow)` as a module of the trace.
inline void run_layer(const Layer& layer, Flow& flow) {
  const TraceScope scope(kModulePrefix, layer.name());
  layer.forward(flow);
}

}  // namespace triptych
