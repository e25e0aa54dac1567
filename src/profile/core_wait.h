#pragma once

#include <cstdint>

namespace triptych {

/// How long the calling thread was ready to run since it began, but had no core: another thread or
/// program did. In ns; -1 where the kernel does not tell (/proc/thread-self/schedstat).
int64_t core_wait_ns();

}  // namespace triptych
