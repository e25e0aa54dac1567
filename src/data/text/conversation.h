#pragma once

// The form that every data format is brought into before a template renders it. No libtorch.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace triptych {

enum class PartKind { kText, kImage, kVideo };

/// A stretch of a message. Parts follow each other without separators, exactly as written.
struct Part {
  PartKind kind = PartKind::kText;
  std::string text;                      ///< kText: UTF-8, untrimmed
  std::string media;                     ///< kImage, kVideo: path as in the record, or a data: URI
  std::vector<std::string> frames = {};  ///< kVideo given as pictures: their paths; media is empty

  bool operator==(const Part&) const = default;
};

/// One turn.
struct Message {
  std::string role;  ///< system, user, assistant, tool: the template's words, not the format's
  std::vector<Part> parts;
  std::optional<bool> learn;  ///< the record's own wish; absent: data.learn decides

  bool operator==(const Message&) const = default;
};

/// A record. The order of media is the order of their parts over all messages.
struct Conversation {
  std::vector<Message> messages;
  std::string origin;  ///< "file:line" or "file: record 7", for messages

  /// The media parts in order: number k here is medium k of `encode_conversation`.
  std::vector<const Part*> media() const {
    std::vector<const Part*> found;
    for (const auto& message : messages) {
      for (const auto& part : message.parts) {
        if (part.kind != PartKind::kText) found.push_back(&part);
      }
    }
    return found;
  }
};

}  // namespace triptych
