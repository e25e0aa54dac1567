#pragma once

#include <cstddef>
#include <vector>

#include "data/media/qwen_vision.h"
#include "data/processor.h"
#include "data/text/chat_template.h"
#include "data/text/tokenizer.h"

namespace triptych {

/// Conversations to samples of Qwen2-VL and Qwen2.5-VL: sizes of media from their headers, then
/// tokens and labels with expanded placeholders; pixels last.
/// Source: transformers, processing_qwen2_5_vl.py.
class QwenProcessor : public Processor {
 public:
  /// @param chat  a built-in template; they live as long as the program
  QwenProcessor(Tokenizer tokenizer, const ChatTemplate& chat, const VisionOptions& vision,
                const EncodeOptions& encode = {});

  SampleSize measure(const Conversation& conversation) const override;
  Sample make(const Conversation& conversation) const override;
  Sample make_without_pixels(const Conversation& conversation) const override;
  Sample make_blank(const Conversation& conversation) const override;

  /// A sample without its pixels.
  struct Plan {
    EncodedConversation text;
    std::vector<MediaPlan> media;  ///< of all media of the conversation; text.media says which stay
  };
  Plan plan(const Conversation& conversation) const;

  const Tokenizer& tokenizer() const { return tokenizer_; }
  const ChatTemplate& chat() const { return chat_; }
  const QwenVision& vision() const { return vision_; }

 private:
  /// Tokens and labels of the plan, which loses them.
  static Sample take_text(const Conversation& conversation, Plan& plan);

  Tokenizer tokenizer_;
  const ChatTemplate& chat_;
  QwenVision vision_;
  EncodeOptions encode_;
};

/// Content of a base64 data: URI. @throws DataError "origin: ..." unless it is one.
std::vector<std::byte> decode_data_uri(std::string_view uri, std::string_view origin);

}  // namespace triptych
