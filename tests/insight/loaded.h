#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "insight/run.h"
#include "insight/trace_reader.h"
#include "support/scratch.h"
#include "synthetic.h"

namespace triptych::insight {

namespace fs = std::filesystem;

inline std::shared_ptr<insight::Run> load_run(const fs::path& where) {
  auto run = std::make_shared<insight::Run>(insight::Run::find({where}));
  run->load(2, nullptr, false);
  return run;
}

/// A run of traces that are given as text, by rank.
inline std::shared_ptr<insight::Run> run_of(const std::vector<std::string>& texts) {
  std::vector<Trace> traces;
  for (const auto& text : texts) traces.push_back(read_trace_text(text, "trace"));
  return std::make_shared<insight::Run>(insight::Run::of(std::move(traces)));
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
