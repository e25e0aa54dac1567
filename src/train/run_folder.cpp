#include "train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>

#include "base/error.h"
#include "base/files.h"
#include "base/format.h"
#include "base/log.h"

namespace triptych {

namespace {

namespace fs = std::filesystem;

constexpr std::array kRunEntries = {"run.toml",    "log.txt",     "metrics.jsonl",
                                    "tensorboard", "checkpoints", "final"};

bool goes_on(const RunOptions& options) {
  const auto* word = std::get_if<ResumeFrom>(&options.checkpoint.resume);
  return word == nullptr || *word == ResumeFrom::kAuto;
}

/// "data.max_length = 512 (was 256), ..." against the run.toml that lies in `output`.
std::string changed_settings(const RunOptions& options) {
  static constexpr std::array kFree = {"output", "train.steps", "train.epochs"};
  const auto file = options.output / "run.toml";
  if (!fs::exists(file)) return {};
  std::map<std::string, std::string> before;
  try {
    const auto run = read_run_options({.file = file, .environment = nullptr, .assignments = {}});
    for (const auto& line : list_options(refer(run.options)))
      before[line.path] = value_text(line.value);
  } catch (const std::exception& error) {
    log_info("the settings of the run before are not compared: {}", error.what());
    return {};
  }
  std::string text;
  for (const auto& line : list_options(refer(options))) {
    const auto was = before.find(line.path);
    const auto now = value_text(line.value);
    if (was != before.end() && was->second == now) continue;
    if (std::ranges::find(kFree, line.path) != kFree.end()) continue;
    text += fmt::format("{}{} = {} (was {})", text.empty() ? "" : ", ", line.path, now,
                        was == before.end() ? "not set" : was->second);
  }
  return text;
}

}  // namespace

FolderLock::FolderLock(const fs::path& output) {
  std::error_code error;
  fs::create_directories(output, error);
  require(!error, "output: ", output.string(), " cannot be made: ", error.message());
  folder_ = Descriptor(::open(output.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  require(folder_.get() >= 0, "output: ", output.string(), ": ", std::strerror(errno));
  if (::flock(folder_.get(), LOCK_EX | LOCK_NB) == 0) return;
  require<UsageError>(errno != EWOULDBLOCK, "output: ", output.string(),
                      " is in use by another run; wait for its end, or choose another folder");
  log_warning("output: {} cannot be locked ({}): nothing keeps a second run out of it",
              output.string(), std::strerror(errno));
}

void prepare_run_folder(const RunOptions& options, bool overwrite) {
  const auto& output = options.output;
  fs::create_directories(output);
  if (overwrite) {
    for (const char* entry : kRunEntries) fs::remove_all(output / entry);
  }
  require<UsageError>(goes_on(options) || !fs::exists(output / "metrics.jsonl"),
                      "output: ", output.string(),
                      " holds a run already, and checkpoint.resume = \"none\" does not go on from "
                      "it; choose another folder, or give --overwrite to delete that run");
}

void write_run_file(const RunOptions& options) {
  write_file_atomically(options.output / "run.toml", options_toml(refer(options)));
}

std::optional<Checkpoint> find_resume_point(const RunOptions& options) {
  if (const auto* path = std::get_if<fs::path>(&options.checkpoint.resume))
    return open_checkpoint(*path, options.checkpoint.verify);
  if (!goes_on(options)) return std::nullopt;
  return find_newest_complete(options.output, options.checkpoint.verify);
}

std::optional<Checkpoint> agree_on_resume(ProcessContext& process, const RunOptions& options,
                                          bool overwrite) {
  std::string folder;
  if (process.rank() == 0) {
    const auto changes = changed_settings(options);
    prepare_run_folder(options, overwrite);
    if (const auto found = find_resume_point(options)) folder = found->folder.string();
    // A checkpoint may turn these settings down; then those that it was made with stay.
    if (folder.empty()) write_run_file(options);
    if (!folder.empty() && !changes.empty())
      log_warning("going on with other settings than before: {}", changes);
  }
  folder = process.control().all_gather_strings(folder, "resume").front();
  if (folder.empty()) return std::nullopt;
  return open_checkpoint(folder);
}

}  // namespace triptych
