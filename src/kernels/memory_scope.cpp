#include "kernels/memory_scope.h"

#include <ATen/SequenceNumber.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <limits>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/memory_books.h"

namespace triptych {
namespace {

thread_local MemoryScope::Place t_place;
thread_local uint64_t t_first_block = 0;

/// From a sequence number on, operators belong to a layer.
struct Since {
  uint64_t sequence;
  uint16_t layer;
};

struct Names {
  std::shared_mutex mutex;
  std::deque<std::string> names{""};  // references stay valid
  std::unordered_map<std::string_view, uint16_t> numbers{{"", 0}};
  std::map<uint64_t, std::vector<Since>> sequences;  // by thread of the forward
  std::atomic<uint64_t> scopes{0};
};

/// Never destroyed: tensors may be freed after main.
Names& names() {
  static auto* instance = new Names;
  return *instance;
}

/// Operators of this thread belong to `layer` from now on.
void remember_sequence(uint16_t layer) {
  if (!at::GradMode::is_enabled()) return;
  auto& self = names();
  const uint64_t thread = at::RecordFunction::currentThreadId();
  const uint64_t sequence = at::sequence_number::peek();
  const std::unique_lock lock(self.mutex);
  auto& list = self.sequences[thread];
  if (!list.empty() && list.back().sequence == sequence) {
    list.back().layer = layer;
  } else {
    list.push_back({sequence, layer});
  }
}

uint16_t layer_of_node(const torch::autograd::Node& node) {
  auto& self = names();
  const std::shared_lock lock(self.mutex);
  const auto list = self.sequences.find(node.thread_id());
  if (list == self.sequences.end()) return 0;
  const auto behind =
      std::ranges::upper_bound(list->second, node.sequence_nr(), {}, &Since::sequence);
  return behind == list->second.begin() ? 0 : std::prev(behind)->layer;
}

}  // namespace

uint16_t memory_layer(std::string_view name) {
  auto& self = names();
  {
    const std::shared_lock lock(self.mutex);
    if (const auto it = self.numbers.find(name); it != self.numbers.end()) return it->second;
  }
  const std::unique_lock lock(self.mutex);
  if (const auto it = self.numbers.find(name); it != self.numbers.end()) return it->second;
  if (self.names.size() > std::numeric_limits<uint16_t>::max()) return 0;
  const auto number = static_cast<uint16_t>(self.names.size());
  self.names.emplace_back(name);
  self.numbers.emplace(self.names.back(), number);
  return number;
}

uint16_t memory_layer_of(std::string_view parameter) {
  auto& self = names();
  const std::shared_lock lock(self.mutex);
  for (auto name = parameter; !name.empty();) {
    if (const auto it = self.numbers.find(name); it != self.numbers.end()) return it->second;
    const size_t dot = name.rfind('.');
    name = name.substr(0, dot == std::string_view::npos ? 0 : dot);
  }
  return 0;
}

std::string_view memory_layer_name(uint16_t layer) {
  auto& self = names();
  const std::shared_lock lock(self.mutex);
  return layer < self.names.size() ? std::string_view(self.names[layer]) : std::string_view();
}

void forget_memory_sequences() {
  auto& self = names();
  const std::unique_lock lock(self.mutex);
  for (auto& [thread, list] : self.sequences) list.clear();
}

MemoryScope::Place memory_place() {
  const auto node = torch::autograd::get_current_node();
  if (node == nullptr || node.get() == t_place.node) return t_place;
  // Made by autograd itself: a node that no scope was opened in.
  MemoryScope::Place place;
  place.tag.phase = MemoryPhase::kBackward;
  const bool leaf = node->sequence_nr() == std::numeric_limits<uint64_t>::max();
  place.tag.kind = leaf ? MemoryKind::kGradient : MemoryKind::kTemporary;
  if (!leaf) place.tag.layer = layer_of_node(*node);
  return place;
}

MemoryScope::MemoryScope(MemoryPhase phase, std::string_view layer)
    : MemoryScope(phase,
                  phase == MemoryPhase::kLoad    ? MemoryKind::kParameter
                  : phase == MemoryPhase::kInput ? MemoryKind::kInput
                  : phase == MemoryPhase::kOther ? MemoryKind::kUnknown
                                                 : MemoryKind::kTemporary,
                  layer) {}

MemoryScope::MemoryScope(MemoryPhase phase, MemoryKind kind, std::string_view layer)
    : before_(t_place), first_before_(t_first_block) {
  t_place.tag = {.layer = memory_layer(layer), .kind = kind, .phase = phase};
  t_place.scope = ++names().scopes;
  t_place.node = torch::autograd::get_current_node().get();
  t_first_block = books::next_block();
  if (phase == MemoryPhase::kForward) remember_sequence(t_place.tag.layer);
}

MemoryScope::~MemoryScope() {
  if (t_place.tag.phase == MemoryPhase::kForward) {
    books::keep_as_activations(t_place.scope, t_first_block);
    remember_sequence(before_.tag.phase == MemoryPhase::kForward ? before_.tag.layer : 0);
  }
  t_place = before_;
  t_first_block = first_before_;
}

}  // namespace triptych
