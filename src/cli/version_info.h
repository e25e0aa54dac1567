#pragma once

namespace triptych::version_info {

inline constexpr const char* kVersion = TRIPTYCH_VERSION;

/// Short hash of the commit that was built, with "+" when files differed from it; "unknown" outside
/// a repository. Written by write_commit.cmake at every build.
const char* commit();

}  // namespace triptych::version_info
