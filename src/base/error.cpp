#include "base/error.h"

#include <set>

namespace triptych {

void Problems::throw_if_any() const {
  if (messages_.empty()) return;
  std::string text;
  std::set<std::string> said;  // what is wrong in two places is said once
  for (const auto& message : messages_) {
    if (!said.insert(message).second) continue;
    if (!text.empty()) text += '\n';
    text += message;
  }
  throw UsageError(text);
}

}  // namespace triptych
