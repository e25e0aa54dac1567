#include "base/option_schema.h"

namespace triptych {

const OptionSchema* TableSchema::find(std::string_view name) const {
  for (const OptionSchema& option : options) {
    if (option.name == name) return &option;
  }
  return nullptr;
}

}  // namespace triptych
