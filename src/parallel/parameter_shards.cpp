#include "parallel/parameter_shards.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "base/format.h"
#include "kernels/memory_ledger.h"
#include "parallel/passing_memory.h"

namespace triptych {

/// The full memory of a unit. Its storage never changes, only what the storage points to: views of
/// it, also those that autograd has saved, stay valid.
struct ParameterShards::Memory {
  at::Tensor full;                ///< flat, over the storage
  std::vector<at::Tensor> views;  ///< of the parameters; a view cannot be made of empty storage
  int64_t holders = 0;            ///< layers that have asked for it
  Pending gathering;

  c10::StorageImpl& storage() const { return *full.storage().unsafeGetStorageImpl(); }
  void allocate() const {
    auto& to = storage();
    const auto fresh = passing_memory(full.numel(), full.options());
    auto& from = *fresh.storage().unsafeGetStorageImpl();
    to.set_data_ptr_noswap(std::move(from._mutable_data_ptr_no_checks()));
    to.set_nbytes(static_cast<size_t>(full.numel()) * full.element_size());
  }
  void free() const {
    auto& to = storage();
    to.set_data_ptr_noswap(c10::DataPtr(nullptr, to.device()));
    to.set_nbytes(0);
  }
};

ParameterShards::ParameterShards(const LayerList& layers, const ShardedParameterSettings& settings)
    : settings_(settings) {
  require(settings_.group != nullptr && settings_.group->size() > 1,
          "sharded parameters need a group of several ranks");
  const at::NoGradGuard no_grad;
  take_layers(layers);
  gather_together({});
}

ParameterShards::~ParameterShards() = default;

// ------------------------------------------------------------------------------------------ set-up

void ParameterShards::take_layers(const LayerList& layers) {
  units_of_layer_.resize(layers.size());
  first_backward_ = layers.size();
  std::map<const Parameter*, std::vector<size_t>> users;
  std::vector<std::pair<ParameterPtr, size_t>> in_order;  // with the first layer that uses it
  for (size_t i = 0; i < layers.size(); ++i) {
    for (const auto& p : layers[i]->parameters()) {
      // of all stages: gradients pass through frozen layers to trained ones of another rank
      if (p->trained) first_backward_ = std::min(first_backward_, i);
      if (!p->on_stage) continue;
      auto& of = users[p.get()];
      if (of.empty()) in_order.emplace_back(p, i);
      if (of.empty() || of.back() != i) of.push_back(i);
    }
  }
  // What the tensor ranks sum gradients of lies apart: its shards are then the same on all of them.
  using Kind = std::tuple<size_t, bool, bool, at::ScalarType, std::string>;
  std::vector<std::pair<Kind, ParameterList>> kinds;
  for (const auto& [p, layer] : in_order) {
    const bool summed = p->trained && (p->placement.sum_over_tensor || p->copies > 1);
    const bool apart = users[p.get()].size() > 1 || settings_.apart.contains(p->name);
    const Kind kind(layer, p->trained, summed, p->value.scalar_type(),
                    apart ? p->name : std::string());
    auto it =
        std::find_if(kinds.begin(), kinds.end(), [&](const auto& k) { return k.first == kind; });
    if (it == kinds.end()) it = kinds.insert(kinds.end(), {kind, {}});
    it->second.push_back(p);
  }
  for (const auto& [kind, parameters] : kinds) {
    make_unit(parameters, users[parameters.front().get()]);
  }
}

void ParameterShards::make_unit(const ParameterList& parameters,
                                const std::vector<size_t>& layers) {
  std::vector<int64_t> lengths;
  for (const auto& p : parameters) lengths.push_back(p->value.numel());
  const int64_t ranks = group().size();
  const auto layout = plan_buckets(lengths, std::numeric_limits<int64_t>::max(), ranks);
  Unit unit{.parameters = parameters, .layout = layout.buckets.front()};
  const int64_t elements = unit.layout.elements, part = elements / ranks;
  const auto options =
      at::TensorOptions(settings_.device).dtype(parameters.front()->value.scalar_type());
  unit.begin = group().rank() * part;
  unit.shard = at::zeros({part}, options);
  tag_memory(unit.shard, MemoryKind::kParameter, parameters.front()->name);
  unit.trained = parameters.front()->trained;
  unit.lowest_layer = layers.front();

  Memory memory{.full = at::empty({elements}, options)};
  for (const auto& slot : unit.layout.slots) {
    const auto& p = parameters[slot.parameter];
    memory.views.push_back(memory.full.narrow(0, slot.offset, slot.length).view(p->value.sizes()));
    places_[p.get()] = {units_.size(), memory.views.size() - 1};
  }
  memory.free();
  for (const auto layer : layers) units_of_layer_[layer].push_back(units_.size());
  units_.push_back(std::move(unit));
  memory_.push_back(std::move(memory));
}

// ------------------------------------------------------------------------------------------ values

void ParameterShards::store(Parameter& parameter, const at::Tensor& value) {
  const at::NoGradGuard no_grad;
  const auto [index, slot] = places_.at(&parameter);
  auto& unit = units_[index];
  require(value.sizes() == parameter.value.sizes(), "'", parameter.name, "' is ",
          parameter.value.sizes(), " on this rank, got ", value.sizes());
  const auto part = intersect(unit.layout.slots[slot], unit.begin, unit.begin + unit.shard.numel());
  if (part.length > 0) {
    unit.shard.narrow(0, part.in_range, part.length)
        .copy_(value.reshape(-1).narrow(0, part.in_parameter, part.length));
  }
  whole_.reset();
  if (parameter.value.is_alias_of(memory_[index].full)) return;
  parameter.value = at::empty({0}, unit.shard.options());
  parameter.value.set_data(memory_[index].views[slot]);
  parameter.value.set_requires_grad(parameter.trained);
}

at::Tensor ParameterShards::whole(const Parameter& parameter) {
  const at::NoGradGuard no_grad;
  const auto [index, slot] = places_.at(&parameter);
  const auto& unit = units_[index];
  // Neighbours are asked for one after the other: one exchange serves a layer.
  if (!whole_.defined() || whole_unit_ != index) {
    whole_.reset();  // before the next one is allocated
    whole_ = at::empty({unit.layout.elements}, unit.shard.options());
    whole_unit_ = index;
    group().all_gather_into(whole_, unit.shard, fmt::format("values of '{}'", parameter.name));
  }
  const auto& place = unit.layout.slots[slot];
  return whole_.narrow(0, place.offset, place.length).view(parameter.value.sizes()).clone();
}

void ParameterShards::release_all() {
  for (size_t piece = 0; piece < pieces_.size(); ++piece) drop(piece);
  cursor_ = -1;
  whole_.reset();
}

int64_t ParameterShards::gathered_bytes() const {
  int64_t bytes = 0;
  for (const auto& memory : memory_) bytes += static_cast<int64_t>(memory.storage().nbytes());
  return bytes;
}

// ----------------------------------------------------------------------------------------- running

void ParameterShards::gather_together(const std::vector<LayerRange>& pieces) {
  pieces_.clear();
  piece_of_layer_.clear();
  const auto layers = static_cast<int64_t>(units_of_layer_.size());
  for (int64_t i = 0; i < layers; i = pieces_.back().end) {
    const auto it = std::find_if(pieces.begin(), pieces.end(),
                                 [i](const auto& p) { return p.begin == i && !p.empty(); });
    pieces_.push_back(it != pieces.end() ? *it : LayerRange{i, i + 1});
    for (int64_t layer = i; layer < pieces_.back().end; ++layer)
      piece_of_layer_.push_back(pieces_.size() - 1);
  }
  requested_.assign(pieces_.size(), false);
}

LayerRange ParameterShards::pieces_of(LayerRange layers) const {
  if (layers.empty()) return {};
  const auto of = [this](int64_t layer) {
    return static_cast<int64_t>(piece_of_layer_[static_cast<size_t>(layer)]);
  };
  return {of(layers.begin), of(layers.end - 1) + 1};
}

void ParameterShards::request(size_t piece) {
  if (requested_[piece]) return;
  requested_[piece] = true;
  for (auto layer = pieces_[piece].begin; layer < pieces_[piece].end; ++layer) {
    for (const auto index : units_of_layer_[static_cast<size_t>(layer)]) {
      auto& memory = memory_[index];
      if (memory.holders++ > 0) continue;
      memory.allocate();
      tag_memory(memory.full, MemoryKind::kParameter, units_[index].parameters.front()->name);
      memory.gathering = group().all_gather_into_async(
          memory.full, units_[index].shard, fmt::format("parameters of layer {}", layer));
    }
  }
}

void ParameterShards::await(size_t piece) {
  for (auto layer = pieces_[piece].begin; layer < pieces_[piece].end; ++layer) {
    for (const auto index : units_of_layer_[static_cast<size_t>(layer)])
      memory_[index].gathering.wait();
  }
}

void ParameterShards::drop(size_t piece) {
  if (!requested_[piece]) return;
  requested_[piece] = false;
  for (auto layer = pieces_[piece].begin; layer < pieces_[piece].end; ++layer) {
    for (const auto index : units_of_layer_[static_cast<size_t>(layer)]) {
      auto& memory = memory_[index];
      if (--memory.holders > 0) continue;
      memory.gathering.wait();
      memory.free();
    }
  }
}

/// Whether a piece stays from its forward to its backward.
bool ParameterShards::keeps(size_t piece, LayerRange pieces) const {
  if (!at::GradMode::is_enabled() || !needed_in_backward(piece)) return false;
  const bool last = static_cast<int64_t>(piece) + 1 == pieces.end;
  return !settings_.reshard || (last && settings_.backward_follows);
}

void ParameterShards::before_forward(size_t layer, LayerRange range) {
  const at::NoGradGuard no_grad;
  whole_.reset();
  const auto piece = piece_of_layer_[layer];
  if (pieces_[piece].begin != static_cast<int64_t>(layer)) return;
  const auto end =
      std::min(static_cast<int64_t>(piece) + 1 + settings_.prefetch, pieces_of(range).end);
  for (auto i = static_cast<int64_t>(piece); i < end; ++i) request(static_cast<size_t>(i));
  await(piece);
}

void ParameterShards::after_forward(size_t layer, LayerRange range, const Flow& before,
                                    const Flow& after) {
  const auto piece = piece_of_layer_[layer];
  const auto pieces = pieces_of(range);
  if (pieces_[piece].end == static_cast<int64_t>(layer) + 1 && !keeps(piece, pieces)) drop(piece);
  if (!at::GradMode::is_enabled()) return;
  for (const auto& [name, value] : after.entries()) {
    if (!value.defined() || !value.requires_grad() || value.is_same(before.get(name))) continue;
    // runs before the operation that made the value is differentiated
    value.register_hook([this, piece, pieces](const at::Tensor& /*gradient*/) {
      enter_backward(static_cast<int64_t>(piece), pieces);
    });
  }
}

void ParameterShards::idle_forward(LayerRange range) {
  const auto pieces = pieces_of(range);
  for (auto i = pieces.begin; i < pieces.end; ++i) {
    const auto piece = static_cast<size_t>(i);
    before_forward(static_cast<size_t>(pieces_[piece].begin), range);
    if (!keeps(piece, pieces)) drop(piece);
  }
}

/// Autograd differentiates the latest operations first, so that all of a layer's have been before
/// those of the layers below it. Layers that were passed over are gathered and left all the same.
void ParameterShards::enter_backward(int64_t piece, LayerRange pieces) {
  const at::NoGradGuard no_grad;
  if (cursor_ < 0) cursor_ = pieces.end;
  while (cursor_ > piece) {
    if (cursor_ < pieces.end) {
      const auto left = static_cast<size_t>(cursor_);
      for (auto layer = pieces_[left].end; layer-- > pieces_[left].begin;) {
        if (layer_done_) layer_done_(static_cast<size_t>(layer));
      }
      if (settings_.reshard) drop(left);
    }
    if (--cursor_ < pieces.begin) break;
    const auto last = std::max(cursor_ - settings_.prefetch, pieces.begin);
    for (auto i = cursor_; i >= last; --i) {
      if (needed_in_backward(static_cast<size_t>(i))) request(static_cast<size_t>(i));
    }
  }
  if (piece >= pieces.begin) await(static_cast<size_t>(piece));
}

void ParameterShards::end_backward(LayerRange range) {
  const auto pieces = pieces_of(range);
  enter_backward(pieces.begin - 1, pieces);
  cursor_ = -1;
}

}  // namespace triptych
