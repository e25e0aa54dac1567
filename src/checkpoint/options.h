#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <tuple>
#include <variant>

#include "base/options.h"

namespace triptych {

enum class ResumeFrom { kAuto, kNone };
constexpr std::array<std::string_view, 2> option_names(ResumeFrom) { return {"auto", "none"}; }

enum class FinalFormat { kHub };
constexpr std::array<std::string_view, 1> option_names(FinalFormat) { return {"hub"}; }

struct SavingOptions {
  int64_t every = 500, keep = 2;
  bool async = true, verify = true;
  std::variant<ResumeFrom, std::filesystem::path> resume = ResumeFrom::kAuto;
  FinalFormat final_format = FinalFormat::kHub;

  static constexpr auto fields() {
    using O = SavingOptions;
    return std::tuple(
        field("every", &O::every, at_least(0),
              "Optimizer steps between checkpoints; 0 = only at the end."),
        field("keep", &O::keep, at_least(1), "How many of the newest checkpoints stay."),
        field("async", &O::async, "Write beside the next steps instead of stopping for it."),
        field("resume", &O::resume,
              "Go on from: auto (newest complete checkpoint in output), none, or a path."),
        field("verify", &O::verify,
              "Compare the checksums of a checkpoint's files before going on from it; else only "
              "their sizes."),
        field("final_format", &O::final_format,
              "hub: final/ is a folder that the reference library loads as it is."));
  }
};

}  // namespace triptych
