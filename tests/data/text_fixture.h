#pragma once

// Tokenizers for tests: a small trained one, and Qwen's real vocabulary where its file is at hand.

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

#include "data/text/bpe_trainer.h"
#include "data/text/tokenizer.h"
#include "support/paths.h"
#include "support/scratch.h"

namespace triptych {

inline std::vector<std::string> training_texts() {
  return {"The picture shows a red square on the left, isn't it?",
          "How many frames 12 345? The pictures show two squares.",
          "assistant user system You are a helpful assistant.", "naïve café, 你好 你好 你好"};
}

/// All the merges these texts give: fewer than 64.
inline Tokenizer small_tokenizer() {
  const Scratch folder;
  save_tokenizer(train_bpe(training_texts(), 320), folder.path());
  return Tokenizer::from_folder(folder.path());
}

/// Qwen2.5's vocabulary; tests/parity/check_tokenizer.py --fetch gets the file.
inline std::optional<std::filesystem::path> qwen_ranks() {
  const char* named = std::getenv("TRIPTYCH_QWEN_RANKS");
  const std::filesystem::path file =
      named != nullptr ? std::filesystem::path(named)
                       : std::filesystem::path(source_dir()) / ".venv" / "qwen.tiktoken";
  return std::filesystem::exists(file) ? std::optional(file) : std::nullopt;
}

inline constexpr const char* kNoRanks =
    "no rank file of Qwen's vocabulary: tests/parity/check_tokenizer.py --fetch gets it";

}  // namespace triptych
