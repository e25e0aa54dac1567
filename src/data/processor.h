#pragma once

// What turns a conversation into a sample of one model family. The loader knows only this.

#include <cstdint>

#include "data/sample.h"
#include "data/text/conversation.h"

namespace triptych {

/// What is known of a sample without decoding its media.
struct SampleSize {
  int32_t tokens = 0;        ///< placeholders expanded; after a cut, if it is cut
  int32_t labels = 0;        ///< tokens that will be predicted: labels from the second token on
  uint64_t media_bytes = 0;  ///< of its patches when decoded
};

/// Threads: any number may call any function at once.
class Processor {
 public:
  virtual ~Processor() = default;

  /// Tokenizes, and reads the headers of the media only. Media are paths that can be opened.
  /// @throws DataError when the sample is bad: a file that is missing or whose header cannot be
  ///   read, wrong text, too long. The same conversation always gets the same answer.
  virtual SampleSize measure(const Conversation& conversation) const = 0;

  /// The whole sample; its index is for the caller to set.
  /// @throws DataError as measure(), or when a body cannot be decoded.
  virtual Sample make(const Conversation& conversation) const = 0;

  /// The same sample without decoding: its media have grids and no rows. What a plan needs.
  /// @throws DataError as measure()
  virtual Sample make_without_pixels(const Conversation& conversation) const = 0;

  /// The same tokens and grids without decoding: patches are 0 and no token carries a label. It
  /// takes the place of a sample whose body turned out to be corrupt, so that rows stay as planned.
  virtual Sample make_blank(const Conversation& conversation) const = 0;
};

}  // namespace triptych
