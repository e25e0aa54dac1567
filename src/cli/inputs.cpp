#include "cli/inputs.h"

#include "base/error.h"
#include "base/files.h"

namespace triptych {

void require_file(const std::filesystem::path& path, std::string_view what) {
  const auto problem = file_problem(path, what);
  require<UsageError>(problem.empty(), path.string(), ": ", problem);
}

void require_folder(const std::filesystem::path& path, std::string_view what) {
  const auto problem = folder_problem(path, what);
  require<UsageError>(problem.empty(), path.string(), ": ", problem);
}

void require_file_or_folder(const std::filesystem::path& path) {
  std::error_code error;  // what cannot be looked at is told by whoever opens it
  require<UsageError>(std::filesystem::exists(path, error) || error, path.string(),
                      ": no such file or folder");
}

}  // namespace triptych
