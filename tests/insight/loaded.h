#pragma once

#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <string>

#include "insight/run.h"
#include "synthetic.h"

namespace triptych::insight {

namespace fs = std::filesystem;

/// A folder that goes with its owner.
class Scratch {
 public:
  Scratch() {
    std::string pattern = (fs::temp_directory_path() / "insight_XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~Scratch() { fs::remove_all(path_); }
  fs::path operator/(const std::string& name) const { return path_ / name; }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

inline std::shared_ptr<insight::Run> load_run(const fs::path& where) {
  auto run = std::make_shared<insight::Run>(insight::Run::find({where}));
  run->load(2, nullptr, false);
  return run;
}

/// A made-up run, written, found and loaded.
struct Loaded {
  Scratch folder;
  std::shared_ptr<insight::Run> run;
  explicit Loaded(const SyntheticOptions& options) {
    write_synthetic_run(options, folder.path());
    run = load_run(folder.path());
  }
};

}  // namespace triptych::insight
