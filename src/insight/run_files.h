#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace triptych::insight {

/// What a run directory holds for the viewer.
struct RunFiles {
  struct TraceCandidate {
    std::filesystem::path path;
    uint64_t bytes = 0;
    int64_t rank = -1, span = 0;
    int64_t time_ns = 0;  ///< of the collection: from the name, the header, or the file
  };
  std::filesystem::path root;
  std::vector<TraceCandidate> traces;  ///< by span, then rank
  std::vector<std::filesystem::path> snapshots;
  std::optional<std::filesystem::path> metrics;
  std::vector<std::string> warnings;
};

/// Looks at most four folders deep; symbolic links that lead outside are left alone. Ranks come
/// from the header, else from the name, else they are counted; collections of the same rank become
/// spans.
RunFiles find_run_files(const std::vector<std::filesystem::path>& where);

}  // namespace triptych::insight
