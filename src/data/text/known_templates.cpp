// The built-in templates, and which published template texts mean which of them.

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/files.h"
#include "base/hash.h"
#include "base/json.h"
#include "data/text/chat_template.h"
#include "data/text/own_template.h"

namespace triptych {
namespace {

ChatTemplate chatml(std::string name) {
  return {.name = std::move(name),
          .turn_open = "<|im_start|>",
          .role_close = "\n",
          .turn_close = "<|im_end|>\n",
          .stop_tokens = {"<|im_end|>", "<|endoftext|>"}};
}

const std::vector<ChatTemplate>& templates() {
  static const std::vector<ChatTemplate> known = [] {
    ChatTemplate qwen = chatml("qwen2_5_vl");
    qwen.default_system = "You are a helpful assistant.";
    qwen.media_open = "<|vision_start|>";
    qwen.media_close = "<|vision_end|>";
    qwen.image_pad = "<|image_pad|>";
    qwen.video_pad = "<|video_pad|>";
    return std::vector{qwen, chatml("chatml")};
  }();
  return known;
}

/// Jinja drops one newline at the end of a template, so files with and without it are the same.
std::string_view without_final_newline(std::string_view text) {
  return text.ends_with('\n') ? text.substr(0, text.size() - 1) : text;
}

struct Published {
  uint64_t hash;  // XXH3-64 of the text without a final newline
  std::string_view name;
};

constexpr std::string_view kOwnJinja = R"({%- for message in messages -%}
{%- if loop.first and message.role != 'system' -%}
{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}
{%- endif -%}
{{ '<|im_start|>' + message.role + '\n' }}
{%- if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'text' -%}
{{ part.text }}
{%- elif part.type == 'video' -%}
{{ '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- else -%}
{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\n' }}
{%- endif -%}
)";

const std::array kPublished = {
    Published{0xd63c0ab8ac046a45, "qwen2_5_vl"},  // Qwen2-VL and Qwen2.5-VL, all sizes
    Published{0x4c6e807ee5fe9f4a, "chatml"},      // the usual ChatML one-liner
    Published{xxh3_64(without_final_newline(kOwnJinja)), "qwen2_5_vl"},
};

std::string joined_names() {
  std::string names;
  for (const auto& name : chat_template_names()) names += (names.empty() ? "" : ", ") + name;
  return names;
}

template <class Choice, size_t N>
Choice choose(std::string_view key, std::string_view word,
              const std::array<std::pair<std::string_view, Choice>, N>& choices) {
  std::string allowed;
  for (const auto& [name, choice] : choices) {
    if (name == word) return choice;
    allowed += (allowed.empty() ? "" : ", ") + std::string(name);
  }
  fail<UsageError>(key, " = '", word, "' is not a choice; allowed: ", allowed);
}

/// `chat_template` of a JSON file: a string, or a list of named ones of which "default" counts.
std::optional<std::string> template_in(const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) return std::nullopt;
  const Json json = read_json(file);
  if (!json.is_object() || !json.contains("chat_template")) return std::nullopt;
  const Json& found = json.at("chat_template");
  if (found.is_null()) return std::nullopt;
  if (found.is_string()) return found.get<std::string>();
  if (found.is_array()) {
    for (const Json& entry : found) {
      if (entry.is_object() && entry.contains("name") && entry.at("name") == "default" &&
          entry.contains("template") && entry.at("template").is_string()) {
        return entry.at("template").get<std::string>();
      }
    }
  }
  fail<DataError>(file.string(),
                  ": chat_template is neither a text nor a list with one named 'default'");
}

}  // namespace

Learn parse_learn(std::string_view word) {
  return choose(
      "data.learn", word,
      std::to_array<std::pair<std::string_view, Learn>>(
          {{"assistant", Learn::kAssistant}, {"last", Learn::kLast}, {"all", Learn::kAll}}));
}

LabelTokens parse_label_tokens(std::string_view word) {
  return choose("data.label_tokens", word,
                std::to_array<std::pair<std::string_view, LabelTokens>>(
                    {{"separate", LabelTokens::kSeparate}, {"whole", LabelTokens::kWhole}}));
}

TooLong parse_too_long(std::string_view word) {
  return choose("data.too_long", word,
                std::to_array<std::pair<std::string_view, TooLong>>(
                    {{"bad", TooLong::kBad}, {"cut", TooLong::kCut}}));
}

std::vector<std::string> chat_template_names() {
  std::vector<std::string> names;
  for (const auto& chat : templates()) names.push_back(chat.name);
  return names;
}

const ChatTemplate& chat_template(std::string_view name) {
  const auto found = std::ranges::find(templates(), name, &ChatTemplate::name);
  require<UsageError>(found != templates().end(), "data.template = '", name,
                      "' is not a known template; known: ", joined_names());
  return *found;
}

std::string_view qwen2_5_vl_jinja() { return kOwnJinja; }

std::optional<std::string> folder_chat_template(const std::filesystem::path& folder) {
  constexpr uint64_t kLimitBytes = 1 << 20;
  const auto jinja = folder / "chat_template.jinja";
  if (std::filesystem::exists(jinja)) return read_file(jinja, kLimitBytes);
  if (auto text = template_in(folder / "chat_template.json")) return text;
  return template_in(folder / "tokenizer_config.json");
}

const ChatTemplate& select_chat_template(std::string_view setting,
                                         const std::filesystem::path& folder,
                                         std::string_view family_default) {
  if (setting != "auto") return chat_template(setting);
  const auto text = folder_chat_template(folder);
  if (!text) return chat_template(family_default);
  const uint64_t hash = xxh3_64(without_final_newline(*text));
  const auto found = std::ranges::find(kPublished, hash, &Published::hash);
  require<UsageError>(found != kPublished.end(), folder.string(), ": the chat template (XXH3 ",
                      hex64(hash), ") is none of those known here; if it means the same as one of ",
                      joined_names(), ", say so with data.template = \"", family_default,
                      "\" in the run file, or --template ", family_default);
  return chat_template(found->name);
}

}  // namespace triptych
