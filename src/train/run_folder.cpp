#include "train/run_folder.h"

#include <array>

#include "base/error.h"
#include "base/files.h"

namespace triptych {

namespace {

namespace fs = std::filesystem;

constexpr std::array kRunEntries = {"run.toml",    "log.txt",     "metrics.jsonl",
                                    "tensorboard", "checkpoints", "final"};

bool goes_on(const RunOptions& options) {
  const auto* word = std::get_if<ResumeFrom>(&options.checkpoint.resume);
  return word == nullptr || *word == ResumeFrom::kAuto;
}

}  // namespace

void prepare_run_folder(const RunOptions& options, bool overwrite) {
  const auto& output = options.output;
  std::error_code error;
  fs::create_directories(output, error);
  require(!error, "output: ", output.string(), " cannot be made: ", error.message());
  if (overwrite) {
    for (const char* entry : kRunEntries) fs::remove_all(output / entry);
  }
  require<UsageError>(goes_on(options) || !fs::exists(output / "metrics.jsonl"),
                      "output: ", output.string(),
                      " holds a run already, and checkpoint.resume = \"none\" does not go on from "
                      "it; choose another folder, or give --overwrite to delete that run");
  write_file_atomically(output / "run.toml", options_toml(refer(options)));
}

std::optional<Checkpoint> find_resume_point(const RunOptions& options) {
  if (const auto* path = std::get_if<fs::path>(&options.checkpoint.resume))
    return open_checkpoint(*path);
  if (!goes_on(options)) return std::nullopt;
  return find_newest_complete(options.output);
}

std::optional<Checkpoint> agree_on_resume(ProcessContext& process, const RunOptions& options,
                                          bool overwrite) {
  std::string folder;
  if (process.rank() == 0) {
    prepare_run_folder(options, overwrite);
    if (const auto found = find_resume_point(options)) folder = found->folder.string();
  }
  folder = process.control().all_gather_strings(folder, "resume").front();
  if (folder.empty()) return std::nullopt;
  return open_checkpoint(folder);
}

}  // namespace triptych
