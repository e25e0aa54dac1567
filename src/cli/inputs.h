#pragma once

#include <filesystem>
#include <string_view>

namespace triptych {

/// What a command line names has to be there: a wrong name is a wrong command line. What is in it
/// is looked at by whoever reads it.
/// @param what  "model folder", as messages call it
/// @throws UsageError
void require_file(const std::filesystem::path& path, std::string_view what);
void require_folder(const std::filesystem::path& path, std::string_view what);
void require_file_or_folder(const std::filesystem::path& path);

}  // namespace triptych
