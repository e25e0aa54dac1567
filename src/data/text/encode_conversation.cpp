// Segments to tokens and labels.

#include <algorithm>

#include "base/error.h"
#include "data/sample.h"
#include "data/text/chat_template.h"

namespace triptych {
namespace {

/// Tokens of a prompt with the answer that follows it; either may be empty. Cutting works on these.
struct Piece {
  std::vector<int32_t> tokens, labels;
};
struct Pair {
  Piece prompt, answer;
};

/// Where a medium's placeholders lie in the pieces: opening and closing marks included.
struct MediaSpan {
  int64_t media;
  size_t pair;
  bool answer;
  size_t begin, end;
};

class Encoder {
 public:
  Encoder(const ChatTemplate& chat, const Tokenizer& tokenizer, const Conversation& conversation,
          std::span<const int64_t> media_tokens, const EncodeOptions& options)
      : chat_(chat),
        tokenizer_(tokenizer),
        origin_(conversation.origin),
        media_tokens_(media_tokens),
        options_(options),
        segments_(render(chat, conversation, options.render)) {
    const size_t media = conversation.media().size();
    require<DataError>(media == media_tokens.size(), origin_, ": ", media,
                       " pictures and videos, but ", media_tokens.size(), " token counts");
  }

  EncodedConversation run() {
    for (size_t i = 0; i < segments_.size();) {
      const bool new_prompt = !segments_[i].answer;
      if (pairs_.empty() || (new_prompt && !pairs_.back().answer.tokens.empty())) {
        pairs_.emplace_back();
      }
      const bool joins = options_.label_tokens == LabelTokens::kWhole && i + 1 < segments_.size() &&
                         segments_[i].kind == PartKind::kText && !segments_[i].answer &&
                         segments_[i + 1].kind == PartKind::kText && segments_[i + 1].answer;
      if (joins) {
        add_joined(segments_[i], segments_[i + 1]);
        i += 2;
      } else {
        segments_[i].kind == PartKind::kText ? add_text(segments_[i]) : add_media(segments_[i]);
        ++i;
      }
    }
    return finish();
  }

 private:
  Piece& piece(bool answer) { return answer ? pairs_.back().answer : pairs_.back().prompt; }

  void label(Piece& p, bool trainable) {
    for (size_t i = p.labels.size(); i < p.tokens.size(); ++i) {
      p.labels.push_back(trainable ? p.tokens[i] : static_cast<int32_t>(kIgnoreLabel));
    }
  }

  void add_text(const Segment& segment) {
    Piece& p = piece(segment.answer);
    tokenizer_.encode_to(segment.text, p.tokens);
    label(p, segment.trainable);
  }

  /// Opening of an assistant's turn and the text after it, tokenized as one. The token across the
  /// border, if there is one, is learned with the answer, as by the hub's assistant masks.
  void add_joined(const Segment& opening, const Segment& content) {
    const auto tokens = tokenizer_.encode(opening.text + content.text);
    // The opening ends in a line break, with which nothing composes.
    const size_t border = tokenizer_.normalize(opening.text).size();
    Piece &prompt = piece(false), &answer = piece(true);
    size_t end = 0;
    for (const int32_t token : tokens) {
      end += tokenizer_.bytes_of(token).size();
      (end <= border ? prompt : answer).tokens.push_back(token);
    }
    label(prompt, opening.trainable);
    label(answer, content.trainable);
  }

  void add_media(const Segment& segment) {
    const int64_t count = media_tokens_[segment.media];
    require<DataError>(count > 0, origin_, ": medium ", segment.media + 1, " takes ", count,
                       " tokens; expected at least 1");
    const bool image = segment.kind == PartKind::kImage;
    const int32_t pad = tokenizer_.require_id(image ? chat_.image_pad : chat_.video_pad);
    Piece& p = piece(segment.answer);
    const size_t begin = p.tokens.size();
    p.tokens.resize(begin + count, pad);
    label(p, segment.trainable);
    // The marks around it are one token each and stand beside it in the same piece.
    spans_.push_back({segment.media, pairs_.size() - 1, segment.answer, begin - 1,
                      begin + static_cast<size_t>(count) + 1});
  }

  int64_t length() const {
    size_t n = 0;
    for (const Pair& pair : pairs_) n += pair.prompt.tokens.size() + pair.answer.tokens.size();
    return static_cast<int64_t>(n);
  }

  EncodedConversation finish() {
    EncodedConversation result;
    const int64_t total = length();
    if (options_.max_length > 0 && total > options_.max_length) {
      require<DataError>(options_.too_long == TooLong::kCut, origin_, ": the sample has ", total,
                         " tokens, data.max_length is ", options_.max_length,
                         "; raise it, or set data.too_long = \"cut\"");
      cut();
      result.cut = true;
    }
    for (Pair& pair : pairs_) {
      for (Piece* p : {&pair.prompt, &pair.answer}) {
        result.tokens.insert(result.tokens.end(), p->tokens.begin(), p->tokens.end());
        result.labels.insert(result.labels.end(), p->labels.begin(), p->labels.end());
      }
    }
    for (const MediaSpan& span : spans_) result.media.push_back(span.media);
    return result;
  }

  static void shorten(Piece& p, int64_t length) {
    p.tokens.resize(static_cast<size_t>(length));
    p.labels.resize(static_cast<size_t>(length));
  }

  /// LLaMA-Factory's way to share the budget between prompts and answers.
  void cut() {
    const bool late_first = options_.render.learn == Learn::kLast;
    int64_t left = options_.max_length;
    for (size_t i = 0; i < pairs_.size(); ++i) {
      Pair& pair = pairs_[late_first ? pairs_.size() - 1 - i : i];
      const auto prompt = static_cast<int64_t>(pair.prompt.tokens.size());
      const auto answer = static_cast<int64_t>(pair.answer.tokens.size());
      int64_t answer_limit = left;
      if (2 * answer >= left) {
        answer_limit = 2 * prompt < left ? left - prompt
                       : prompt + answer > 0
                           ? static_cast<int64_t>(static_cast<double>(left) *
                                                  (static_cast<double>(answer) /
                                                   static_cast<double>(prompt + answer)))
                           : 0;
      }
      const int64_t kept_answer = std::min(answer, answer_limit);
      const int64_t kept_prompt = std::min(prompt, std::max<int64_t>(left - kept_answer, 0));
      shorten(pair.prompt, kept_prompt);
      shorten(pair.answer, kept_answer);
      left -= kept_prompt + kept_answer;
    }
    std::erase_if(spans_, [&](const MediaSpan& span) {
      const Pair& pair = pairs_[span.pair];
      const size_t kept = (span.answer ? pair.answer : pair.prompt).tokens.size();
      const bool gone = span.begin >= kept;
      // A later turn may fall away as a whole, but no answer may lose what it is about.
      require<DataError>(span.end <= kept || (gone && pair.answer.tokens.empty()), origin_,
                         ": cutting to data.max_length ", options_.max_length,
                         " would cut picture or video ", span.media + 1,
                         "; raise it, or lower the pixel limits");
      return gone;
    });
  }

  const ChatTemplate& chat_;
  const Tokenizer& tokenizer_;
  const std::string& origin_;
  std::span<const int64_t> media_tokens_;
  const EncodeOptions& options_;
  std::vector<Segment> segments_;
  std::vector<Pair> pairs_;
  std::vector<MediaSpan> spans_;
};

}  // namespace

EncodedConversation encode_conversation(const ChatTemplate& chat, const Tokenizer& tokenizer,
                                        const Conversation& conversation,
                                        std::span<const int64_t> media_tokens,
                                        const EncodeOptions& options) {
  return Encoder(chat, tokenizer, conversation, media_tokens, options).run();
}

}  // namespace triptych
