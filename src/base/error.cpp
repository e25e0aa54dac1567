#include "base/error.h"

namespace triptych {

void Problems::throw_if_any() const {
  if (messages_.empty()) return;
  std::string text;
  for (const auto& message : messages_) {
    if (!text.empty()) text += '\n';
    text += message;
  }
  throw UsageError(text);
}

}  // namespace triptych
