#pragma once

// A trained model as one uses it: conversations in, answers out.

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "data/dataset.h"
#include "data/qwen_processor.h"
#include "train/generator.h"
#include "train/loaded_model.h"

namespace triptych {

struct AssistantRequest {
  std::filesystem::path model;    ///< hub folder
  std::filesystem::path adapter;  ///< peft folder; empty: none
  at::Device device = at::kCPU;
  std::optional<at::ScalarType> dtype;  ///< absent: fp32 for weights stored so, else bf16
  std::string video_position_rule = "max_hw";
  std::string chat_template = "auto";  ///< as data.template
};

class Assistant {
 public:
  /// @throws DataError naming what is missing or wrong in the folders.
  explicit Assistant(const AssistantRequest& request);

  /// Called with each piece of the answer as it comes.
  using OnText = std::function<void(const std::string& piece)>;

  /// The answer to a conversation that ends with a user's turn; without special tokens.
  std::string answer(const Conversation& conversation, GenerateOptions options,
                     const OnText& on_text = {}) const;

  /// Sum of the losses of all assistant turns, and how many tokens they are.
  struct Loss {
    double sum = 0;
    int64_t tokens = 0;
  };
  Loss loss(const Conversation& conversation) const;

  const LoadedModel& model() const { return loaded_; }

 private:
  FlowRequest flow_request() const;

  at::Device device_;
  LoadedModel loaded_;
  std::unique_ptr<QwenProcessor> prompts_, records_;
  std::vector<int32_t> stop_tokens_;
};

/// A user's turn: pictures and videos stand where `<image>` and `<video>` are in the text; those
/// that the text has no place for come first.
/// @throws UsageError when the text has more places than there are media.
Conversation make_prompt(std::string_view text, const std::vector<std::string>& images,
                         const std::vector<std::string>& videos);

/// One record, answered.
struct EvaluatedAnswer {
  std::string origin, expected, given;
  bool exact = false;  ///< equal but for white space at both ends
};

struct Evaluation {
  double loss = 0;  ///< mean over label tokens
  int64_t label_tokens = 0;
  int64_t samples = 0, exact = 0;
  std::vector<EvaluatedAnswer> answers;
};

struct EvaluateOptions {
  int64_t limit = 0;    ///< records; 0: all
  bool answers = true;  ///< generate; false: loss alone
  GenerateOptions generate;
  std::function<void(int64_t done, int64_t of)> on_sample;
};

/// Loss over all assistant turns, and whether the last turn, generated, equals the record's.
/// @throws DataError naming the bad record.
Evaluation evaluate(const Assistant& assistant, const Dataset& dataset,
                    const EvaluateOptions& options);

}  // namespace triptych
