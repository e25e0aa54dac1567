#pragma once

// Chat templates as code: a conversation becomes segments that know their role and whether they are
// learned, so that labels need no searching in a rendered string. No libtorch.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/conversation.h"
#include "data/text/tokenizer.h"

namespace triptych {

/// Which text carries loss (`data.learn`).
enum class Learn {
  kAssistant,  ///< every assistant turn: its content, the end-of-turn token and the newline after
               ///< it
  kLast,       ///< the same of the last assistant turn only
  kAll,        ///< everything, prompts and placeholders too
};

/// How turns become tokens (`data.label_tokens`). They differ where an answer begins with white
/// space.
enum class LabelTokens {
  kSeparate,  ///< each prompt and each answer tokenized on its own
  kWhole,     ///< the rendered string; a token that holds any learned text is learned
};

/// What happens to a sample longer than `data.max_length` (`data.too_long`).
enum class TooLong { kBad, kCut };

/// Words of the run file to choices; throws UsageError naming the allowed words.
Learn parse_learn(std::string_view word);
LabelTokens parse_label_tokens(std::string_view word);
TooLong parse_too_long(std::string_view word);

/// A family of ChatML-like templates, as data:
///
///   turn   = turn_open role role_close content turn_close
///   medium = media_open pad*n media_close
struct ChatTemplate {
  std::string name;
  std::string turn_open, role_close, turn_close;
  std::optional<std::string>
      default_system;                    ///< put first when the conversation has no system turn
  std::string media_open, media_close;   ///< around each medium; empty: a text-only template
  std::string image_pad, video_pad;      ///< one per token of the medium
  std::vector<std::string> stop_tokens;  ///< what ends an answer, most usual first
  std::vector<std::string> roles;        ///< allowed roles; empty: any
};

/// A stretch of rendered text, or one medium.
struct Segment {
  PartKind kind = PartKind::kText;
  std::string text;        ///< kText
  int64_t media = -1;      ///< kImage, kVideo: number in Conversation::media()
  int64_t message = -1;    ///< number in Conversation::messages; -1: written by the template itself
  std::string role;        ///< of the turn it stands in
  bool trainable = false;  ///< carries loss
  bool answer = false;     ///< part of an assistant turn's content or its end; false: prompt
};

struct RenderOptions {
  Learn learn = Learn::kAssistant;
  bool add_generation_prompt = false;  ///< append the opening of an assistant turn
  bool add_vision_id = false;          ///< "Picture 1: ", "Video 1: " before each medium
};

/// Segments of a conversation, in order. The opening of an assistant turn is prompt, its content
/// with the end of turn is answer. Adjacent text of the same kind of segment is joined.
/// @throws DataError  on no messages, a role the template does not know, media in a text-only
///                    template, or text that spells one of the placeholders.
std::vector<Segment> render(const ChatTemplate& chat, const Conversation& conversation,
                            const RenderOptions& options = {});

/// The rendered string with each placeholder once, as the hub's Jinja template writes it.
std::string render_text(const ChatTemplate& chat, const Conversation& conversation,
                        const RenderOptions& options = {});

struct EncodeOptions {
  RenderOptions render;
  LabelTokens label_tokens = LabelTokens::kSeparate;
  int64_t max_length = 0;  ///< tokens with placeholders expanded; 0: no limit
  TooLong too_long = TooLong::kBad;
};

/// A conversation as the model takes it.
struct EncodedConversation {
  std::vector<int32_t> tokens;  ///< [n], placeholders expanded
  std::vector<int32_t> labels;  ///< [n], token id or kIgnoreLabel, not shifted
  std::vector<int64_t>
      media;         ///< numbers of the media whose placeholders are in tokens, in order;
                     ///< shorter than Conversation::media() only where whole turns were cut
  bool cut = false;  ///< shortened to max_length
};

/// Renders, expands placeholders and tokenizes.
///
/// Cutting (`TooLong::kCut`) follows LLaMA-Factory: per (prompt, answer) pair, from the first on
/// (from the last on with Learn::kLast), the budget is shared between the two and each is cut at
/// its end.
///
/// @param media_tokens  [media] tokens each medium takes: patches / merge^2, in order.
/// @throws DataError    as render(); a count that is missing or not positive; a placeholder that is
/// no
///                      token of this tokenizer; a sample longer than max_length that may not be
///                      cut, or whose cut would take a picture from its answer.
EncodedConversation encode_conversation(const ChatTemplate& chat, const Tokenizer& tokenizer,
                                        const Conversation& conversation,
                                        std::span<const int64_t> media_tokens,
                                        const EncodeOptions& options = {});

/// Names of the built-in templates.
std::vector<std::string> chat_template_names();

/// A built-in template; throws UsageError naming the known ones.
const ChatTemplate& chat_template(std::string_view name);

/// The template text that a model folder carries: chat_template.jinja, chat_template.json or
/// tokenizer_config.json, in this order; nothing when there is none.
std::optional<std::string> folder_chat_template(const std::filesystem::path& folder);

/// What `data.template` means for a model folder.
///
/// @param setting         "auto" or a built-in name; a name always wins.
/// @param family_default  built-in name taken when the folder carries no template.
/// @throws UsageError     when the folder's template is none of the published texts known here; the
///                        message offers data.template.
const ChatTemplate& select_chat_template(std::string_view setting,
                                         const std::filesystem::path& folder,
                                         std::string_view family_default = "chatml");

}  // namespace triptych
