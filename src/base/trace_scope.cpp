#include "base/trace_scope.h"

#include <chrono>

namespace triptych {

int64_t trace_time_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

void TraceScope::open(TraceSink& sink, std::string_view name, std::string_view rest) {
  std::string text;
  text.reserve(name.size() + rest.size());
  text.append(name).append(rest);
  scope_ = sink.open_scope(std::move(text));
  sink_ = &sink;
}

}  // namespace triptych
