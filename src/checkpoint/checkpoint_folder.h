#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "checkpoint/output_file.h"

namespace triptych {

/// A complete checkpoint on disk.
struct Checkpoint {
  std::filesystem::path folder;  ///< .../checkpoints/step_00000500
  int64_t step = 0;

  std::filesystem::path weights() const { return folder / "weights"; }
  std::filesystem::path optimizer() const { return folder / "optimizer"; }
  Json state() const;  ///< state.json
};

/// "step_00000500"
std::string checkpoint_name(int64_t step);

/// The newest complete checkpoint of a run: its manifest is there and every file has the size that
/// the manifest says (with `verify` also the checksum). A damaged one is passed over with a warning
/// that says what is wrong with it, and the one before is taken.
/// @throws DataError when there are checkpoints, but none is whole.
std::optional<Checkpoint> find_newest_complete(const std::filesystem::path& output,
                                               bool verify = false);

/// The checkpoint in `folder` (`checkpoint.resume` = a path).
/// @throws DataError naming what is missing or damaged.
Checkpoint open_checkpoint(const std::filesystem::path& folder, bool verify = false);

/// Steps that have a manifest, rising; their files are not looked at.
std::vector<int64_t> listed_checkpoints(const std::filesystem::path& output);

/// Removes folders and files that killed saves left; never a complete checkpoint.
/// @return how many were removed.
int64_t remove_leftovers(const std::filesystem::path& output);

/// Deletes the oldest complete checkpoints until `keep` are left (0 = all are kept). `newest` was
/// just completed and is never deleted.
void remove_old_checkpoints(const std::filesystem::path& output, int64_t keep, int64_t newest);

/// The file that makes a checkpoint complete. Paths are relative to its folder, with slashes.
struct Manifest {
  int64_t step = 0;
  int64_t world = 1;
  std::map<std::string, FileDigest> files;

  std::string dump() const;
  static Manifest read(const std::filesystem::path& path);
  static Manifest parse(std::string_view text, const std::string& origin);
};

}  // namespace triptych
