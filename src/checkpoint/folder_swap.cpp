#include "checkpoint/folder_swap.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <system_error>

#include "base/error.h"
#include "base/files.h"
#include "base/format.h"

namespace triptych {
namespace fs = std::filesystem;

FolderSwap::FolderSwap(fs::path folder, bool replace) : folder_(std::move(folder)) {
  folder_ = folder_.lexically_normal();
  if (!folder_.has_filename()) folder_ = folder_.parent_path();  // "final/"
  require(folder_.has_filename(), "'", folder_.string(), "': is not the name of a folder");
  if (fs::exists(folder_)) {
    require(fs::is_directory(folder_), folder_.string(), ": is there already and is not a folder");
    require(replace || fs::is_empty(folder_), folder_.string(),
            ": is there already and not empty; choose another folder or remove it");
  }
  temporary_ = folder_;
  temporary_.replace_filename(fmt::format(".{}.tmp-{}", folder_.filename().string(), ::getpid()));
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);  // of a killed process that had this number
  make_folders(temporary_);
}

FolderSwap::~FolderSwap() {
  if (finished_) return;
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
}

void FolderSwap::finish() {
  put_folder_in_place(temporary_, folder_);
  finished_ = true;
}

void put_folder_in_place(const fs::path& temporary, const fs::path& folder) {
  sync_folder(temporary);
  const bool exchange = fs::exists(folder) && !fs::is_empty(folder);
  const unsigned flags = exchange ? RENAME_EXCHANGE : 0;
  if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, folder.c_str(), flags) != 0) {
    if (!exchange || errno != EINVAL) fail_errno(folder, "cannot be put in place");
    // A file system without exchange: the old folder steps aside first.
    fs::path aside = temporary;
    aside += ".old";
    fs::rename(folder, aside);
    fs::rename(temporary, folder);
    fs::rename(aside, temporary);
  }
  sync_folder(folder.has_parent_path() ? folder.parent_path() : fs::path("."));
  std::error_code ignored;
  if (exchange) fs::remove_all(temporary, ignored);
}

}  // namespace triptych
