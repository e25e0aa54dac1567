#pragma once

#include <filesystem>

namespace triptych {

/// A folder that appears complete or not at all: filled as `.NAME.tmp-PID` beside it, then renamed.
class FolderSwap {
 public:
  /// Makes the temporary folder.
  /// @param replace false: an existing `folder` that is not empty is refused.
  FolderSwap(std::filesystem::path folder, bool replace);
  /// Removes the temporary folder unless `finish` succeeded.
  ~FolderSwap();
  FolderSwap(const FolderSwap&) = delete;
  FolderSwap& operator=(const FolderSwap&) = delete;

  const std::filesystem::path& temporary() const { return temporary_; }

  /// Flushes the list of names, puts the folder in its place in one step, removes the old one.
  void finish();

 private:
  std::filesystem::path folder_, temporary_;
  bool finished_ = false;
};

/// Renames `temporary` to `folder` in one step and flushes the folder around it. An existing
/// non-empty folder is exchanged and then removed.
void put_folder_in_place(const std::filesystem::path& temporary,
                         const std::filesystem::path& folder);

}  // namespace triptych
