#include "train/assistant.h"

#include <ATen/ops/isfinite.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/files.h"
#include "base/format.h"
#include "base/progress.h"
#include "train/train_step.h"

namespace triptych {

namespace {

namespace fs = std::filesystem;

LoadedModel load(const AssistantRequest& request) {
  require<DataError>(
      !fs::exists(request.model / kAdapterConfigFile) || fs::exists(request.model / "config.json"),
      request.model.string(),
      ": is an adapter's folder; name its base model and give this one as --adapter");
  const auto dtype = request.dtype.value_or(compute_type_of(request.model));
  return load_model({.folder = request.model,
                     .dtype = dtype,
                     .device = request.device,
                     .video_position_rule = request.video_position_rule,
                     .adapter = request.adapter});
}

/// The template's ends of an answer and what generation_config.json adds.
std::vector<int32_t> stop_tokens(const fs::path& folder, const QwenProcessor& processor) {
  std::vector<int32_t> tokens;
  for (const auto& text : processor.chat().stop_tokens) {
    if (const auto id = processor.tokenizer().id_of(text)) tokens.push_back(*id);
  }
  const auto file = folder / "generation_config.json";
  if (fs::exists(file)) {
    const auto config = read_json(file);
    const auto found = config.is_object() ? config.value("eos_token_id", Json()) : Json();
    for (const auto& id : found.is_null() || found.is_array() ? found : Json::array({found})) {
      require<DataError>(
          id.is_number_integer() && id >= 0 && id <= std::numeric_limits<int32_t>::max(),
          file.string(), ": eos_token_id holds ", dump_json(id), ", a token's number is expected");
      tokens.push_back(id.get<int32_t>());
    }
  }
  return tokens;
}

std::unique_ptr<QwenProcessor> make_reader(const AssistantRequest& request, bool prompt) {
  const auto& folder = request.model;
  const auto& chat = select_chat_template(request.chat_template, folder, "qwen2_5_vl");
  return std::make_unique<QwenProcessor>(
      Tokenizer::from_folder(folder), chat, read_vision_options(folder),
      EncodeOptions{.render = {.add_generation_prompt = prompt}});
}

std::string trimmed(const std::string& text) {
  constexpr auto kSpace = " \t\r\n";
  const auto begin = text.find_first_not_of(kSpace);
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

/// Which weights make the model's output NaN or infinite; looked for only then.
std::string nonfinite_words(const LoadedModel& loaded) {
  std::string first;
  int64_t count = 0;
  for (const auto& parameter : loaded.model.parameters) {
    if (at::isfinite(parameter->value).all().item<bool>()) continue;
    if (count++ == 0) first = parameter->name;
  }
  if (count == 0) return "; the weights are. Does --precision fp32 help?";
  return fmt::format(": the weights '{}' hold NaN or infinity ({})", first,
                     counted(count, "such tensor"));
}

std::string text_of(const Message& message) {
  std::string text;
  for (const auto& part : message.parts) text += part.text;
  return text;
}

}  // namespace

Assistant::Assistant(const AssistantRequest& request)
    : device_(request.device),
      loaded_(load(request)),
      prompts_(make_reader(request, true)),
      records_(make_reader(request, false)),
      stop_tokens_(stop_tokens(request.model, *prompts_)) {}

FlowRequest Assistant::flow_request() const {
  return {.device = device_,
          .dtype = loaded_.model.parameters.front()->value.scalar_type(),
          .with_labels = false,
          .last_logits = true};
}

std::string Assistant::answer(const Conversation& conversation, GenerateOptions options,
                              const OnText& on_text) const {
  if (options.stop_tokens.empty()) options.stop_tokens = stop_tokens_;
  const auto prompt = prompts_->make(conversation);
  StreamingDecoder decoder(prompts_->tokenizer(), {.skip_special_tokens = true});
  std::string text;
  const auto emit = [&](const std::string& piece) {
    text += piece;
    if (on_text && !piece.empty()) on_text(piece);
  };
  try {
    generate(*loaded_.family, loaded_.model, prompt, options, flow_request(), [&](int32_t token) {
      emit(decoder.add(token));
      return true;
    });
  } catch (const NonfiniteOutput& error) {
    fail(conversation.origin, ": ", error.what(), nonfinite_words(loaded_));
  }
  emit(decoder.finish());
  return text;
}

Assistant::Loss Assistant::loss(const Conversation& conversation) const {
  const auto sum = evaluate_loss(loaded_, {.rows = {{{records_->make(conversation)}}}},
                                 {.device = device_, .dtype = flow_request().dtype});
  if (!std::isfinite(sum.loss))
    fail(conversation.origin, ": the loss is not finite", nonfinite_words(loaded_));
  return {.sum = sum.loss, .tokens = static_cast<int64_t>(sum.tokens)};
}

Conversation make_prompt(std::string_view text, const std::vector<std::string>& images,
                         const std::vector<std::string>& videos) {
  constexpr std::string_view kImage = "<image>", kVideo = "<video>";
  std::vector<Part> placed;
  size_t image = 0, video = 0;
  while (!text.empty()) {
    const auto at = std::min(text.find(kImage), text.find(kVideo));
    if (at != 0) {
      placed.push_back({.text = std::string(text.substr(0, at))});
      text.remove_prefix(std::min(at, text.size()));
      continue;
    }
    const bool is_image = text.starts_with(kImage);
    auto& next = is_image ? image : video;
    const auto& files = is_image ? images : videos;
    require<UsageError>(next < files.size(), "the prompt places more ",
                        is_image ? "<image> than --image" : "<video> than --video",
                        " files were given (", files.size(), ")");
    placed.push_back({.kind = is_image ? PartKind::kImage : PartKind::kVideo,
                      .text = {},
                      .media = files[next++]});
    text.remove_prefix(is_image ? kImage.size() : kVideo.size());
  }
  Message message{.role = "user", .parts = {}};
  for (; image < images.size(); ++image)
    message.parts.push_back({.kind = PartKind::kImage, .text = {}, .media = images[image]});
  for (; video < videos.size(); ++video)
    message.parts.push_back({.kind = PartKind::kVideo, .text = {}, .media = videos[video]});
  message.parts.insert(message.parts.end(), placed.begin(), placed.end());
  return {.messages = {std::move(message)}, .origin = "prompt"};
}

Evaluation evaluate(const Assistant& assistant, const Dataset& dataset,
                    const EvaluateOptions& options) {
  Evaluation result;
  double loss = 0;
  const int64_t all = dataset.size(0);
  const int64_t count = options.limit > 0 ? std::min(options.limit, all) : all;
  for (int64_t record = 0; record < count; ++record) {
    auto conversation = dataset.conversation({.source = 0, .record = record});
    const auto part = assistant.loss(conversation);
    loss += part.sum;
    result.label_tokens += part.tokens;
    if (options.answers) {
      require<DataError>(conversation.messages.back().role == "assistant", conversation.origin,
                         ": the last turn is of '", conversation.messages.back().role,
                         "'; an answer of the assistant is expected");
      EvaluatedAnswer answer{.origin = conversation.origin,
                             .expected = trimmed(text_of(conversation.messages.back())),
                             .given = {}};
      conversation.messages.pop_back();
      answer.given = trimmed(assistant.answer(conversation, options.generate));
      answer.exact = answer.given == answer.expected;
      result.exact += answer.exact ? 1 : 0;
      result.answers.push_back(std::move(answer));
    }
    ++result.samples;
    if (options.on_sample) options.on_sample(result.samples, count);
  }
  require<DataError>(result.label_tokens > 0, "no record carries a label token");
  result.loss = loss / static_cast<double>(result.label_tokens);
  return result;
}

}  // namespace triptych
