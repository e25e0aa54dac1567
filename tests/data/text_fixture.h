#pragma once

// Tokenizers for tests: a small trained one, and Qwen's real vocabulary where its file is at hand.

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <random>
#include <string>

#include "data/text/bpe_trainer.h"
#include "data/text/tokenizer.h"

namespace triptych {

/// A folder of this test's own, gone afterwards.
class TemporaryFolder {
 public:
  TemporaryFolder()
      : path_(std::filesystem::temp_directory_path() /
              ("triptych_text_" + std::to_string(std::random_device{}()))) {
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline std::vector<std::string> training_texts() {
  return {"The picture shows a red square on the left, isn't it?",
          "How many frames 12 345? The pictures show two squares.",
          "assistant user system You are a helpful assistant.", "naïve café, 你好 你好 你好"};
}

/// All the merges these texts give: fewer than 64.
inline Tokenizer small_tokenizer() {
  const TemporaryFolder folder;
  save_tokenizer(train_bpe(training_texts(), 320), folder.path());
  return Tokenizer::from_folder(folder.path());
}

/// Qwen2.5's vocabulary; tests/parity/check_tokenizer.py --fetch gets the file.
inline std::optional<std::filesystem::path> qwen_ranks() {
  const char* named = std::getenv("TRIPTYCH_QWEN_RANKS");
  const std::filesystem::path file =
      named != nullptr ? std::filesystem::path(named)
                       : std::filesystem::path(TRIPTYCH_SOURCE_DIR) / ".venv" / "qwen.tiktoken";
  return std::filesystem::exists(file) ? std::optional(file) : std::nullopt;
}

inline constexpr const char* kNoRanks =
    "no rank file of Qwen's vocabulary: tests/parity/check_tokenizer.py --fetch gets it";

}  // namespace triptych
