#include "profile/core_wait.h"

#include <cstdio>

namespace triptych {

int64_t core_wait_ns() {
  std::FILE* file = std::fopen("/proc/thread-self/schedstat", "re");
  if (file == nullptr) return -1;
  long long ran = 0, waited = 0;
  const int read = std::fscanf(file, "%lld %lld", &ran, &waited);
  std::fclose(file);
  return read == 2 ? waited : -1;
}

}  // namespace triptych
