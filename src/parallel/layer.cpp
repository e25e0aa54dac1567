#include "parallel/layer.h"

#include <algorithm>

#include "base/error.h"

namespace triptych {

namespace {
auto find(auto& entries, std::string_view field) {
  return std::find_if(entries.begin(), entries.end(),
                      [&](const auto& e) { return e.first == field; });
}
}  // namespace

const at::Tensor& Flow::get(std::string_view field) const {
  static const at::Tensor nothing;
  const auto it = find(entries_, field);
  return it == entries_.end() ? nothing : it->second;
}

const at::Tensor& Flow::at(std::string_view field) const {
  const auto& value = get(field);
  require(value.defined(), "flow: the field '", field,
          "' is missing; an earlier layer should have set it");
  return value;
}

void Flow::set(std::string_view field, at::Tensor value) {
  const auto it = find(entries_, field);
  if (it == entries_.end()) {
    entries_.emplace_back(field, std::move(value));
  } else {
    it->second = std::move(value);
  }
}

void Flow::erase(std::string_view field) {
  const auto it = find(entries_, field);
  if (it != entries_.end()) entries_.erase(it);
}

}  // namespace triptych
