#include "base/memory.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "base/files.h"

namespace triptych {
namespace {

/// The number after "name:" in a /proc file, times 1024; 0 when it is not there.
uint64_t proc_kib(const char* path, const std::string& name) {
  try {
    const std::string text = read_file(path, 1 << 20);
    const size_t at = text.find(name + ":");
    if (at == std::string::npos) return 0;
    return std::strtoull(text.c_str() + at + name.size() + 1, nullptr, 10) * 1024;
  } catch (const Error&) {
    return 0;
  }
}

uint64_t cgroup_limit() {
  for (const char* path :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    try {
      const uint64_t limit = std::strtoull(read_file(path, 4096).c_str(), nullptr, 10);
      if (limit > 0) return limit;  // "max" reads as 0
    } catch (const Error&) {
      continue;
    }
  }
  return UINT64_MAX;
}

}  // namespace

uint64_t resident_bytes() {
  try {
    const std::string text = read_file("/proc/self/statm", 4096);
    const size_t space = text.find(' ');
    if (space == std::string::npos) return 0;
    return std::strtoull(text.c_str() + space, nullptr, 10) *
           static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  } catch (const Error&) {
    return 0;
  }
}

uint64_t peak_resident_bytes() {
  // Not getrusage(): its figure survives exec, so a worker would report its parent's peak.
  return proc_kib("/proc/self/status", "VmHWM");
}

uint64_t total_memory_bytes() {
  return std::min(proc_kib("/proc/meminfo", "MemTotal"), cgroup_limit());
}

uint64_t available_memory_bytes() {
  return std::min(proc_kib("/proc/meminfo", "MemAvailable"), total_memory_bytes());
}

}  // namespace triptych
