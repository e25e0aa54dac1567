#include "train/run_checkpoint.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <set>

#include "base/error.h"
#include "checkpoint/optimizer_state.h"
#include "train/save_model.h"

namespace triptych {

namespace {

struct NamedKind {
  StateKind kind;
  const char* name;
};
constexpr std::array kKinds = {NamedKind{StateKind::kMaster, "master"},
                               NamedKind{StateKind::kExpAvg, "exp_avg"},
                               NamedKind{StateKind::kExpAvgSq, "exp_avg_sq"}};

/// Names of the parameters whose file holds every bit of the master.
std::set<std::string> exactly_stored(const LoadedModel& loaded) {
  std::set<std::string> names;
  const auto add = [&](const Parameter& parameter) {
    if (parameter.value.scalar_type() == at::kFloat) names.insert(parameter.name);
  };
  if (loaded.lora) {  // adapters are stored as they are
    for (const auto& parameter : loaded.trained()) add(*parameter);
    return names;
  }
  for (const auto& file : loaded.layout.files) {
    for (const auto& tensor : file.header.tensors) {
      const auto* parameter = loaded.find(tensor.name);
      if (parameter != nullptr && scalar_type_of(tensor.type) == at::kFloat) add(*parameter);
    }
  }
  return names;
}

Adapter adapter_of(const LoadedModel& loaded) {
  Adapter adapter{.config = *loaded.lora, .tensors = {}};
  if (!loaded.folder.empty())
    adapter.config.base_model = std::filesystem::absolute(loaded.folder).string();
  for (auto& [name, tensor] : adapter_tensors(loaded)) adapter.tensors.emplace(name, tensor);
  return adapter;
}

/// A stretch of what this rank holds of a parameter that lies in one slice of the whole.
struct HeldStretch {
  int64_t begin = 0, end = 0;        ///< elements of the slice
  int64_t begin_held = 0;            ///< where it begins among the held elements
  std::optional<TensorSlice> slice;  ///< nothing: the whole parameter
};

/// Elements [begin, end) of the held part, flattened, as stretches of slices.
std::vector<HeldStretch> stretches_of(const Parameter& parameter, int64_t begin, int64_t end) {
  if (parameter.held.empty()) return {{begin, end, begin, {}}};
  const int64_t dim = parameter.placement.split->dim;
  int64_t inner = 1;
  for (size_t d = static_cast<size_t>(dim) + 1; d < parameter.full_shape.size(); ++d)
    inner *= parameter.full_shape[d];
  require(dim == 0 || parameter.held.size() == 1, "'", parameter.name,
          "': sections of a dim behind the first are not stored");
  std::vector<HeldStretch> stretches;
  int64_t first = 0;  // held element with which the range begins
  for (const auto& range : parameter.held) {
    const int64_t length =
        parameter.held.size() == 1 ? parameter.value.numel() : range.length * inner;
    const int64_t from = std::max(begin, first), to = std::min(end, first + length);
    if (from < to) {
      stretches.push_back({from - first, to - first, from,
                           TensorSlice{.dim = dim, .start = range.start, .length = range.length}});
    }
    first += length;
  }
  return stretches;
}

template <class T>
T field_of(const Json& json, const char* key, const std::string& origin) {
  const auto it = json.find(key);
  require<DataError>(it != json.end(), origin, ": '", key, "' is missing");
  try {
    return it->get<T>();
  } catch (const std::exception& error) {
    fail<DataError>(origin, ": '", key, "': ", error.what());
  }
}

}  // namespace

Json RunState::to_json() const {
  return {{"format", 1},
          {"step", step},
          {"data", data.to_json()},
          {"optimizer_steps", optimizer_steps},
          {"deviating_steps", deviating_steps},
          {"skipped", skipped}};
}

RunState RunState::from_json(const Json& json, const std::string& origin) {
  const auto format = field_of<int64_t>(json, "format", origin);
  require<DataError>(format == 1, origin, ": format ", format, " is not known; expected 1");
  RunState state;
  state.step = field_of<int64_t>(json, "step", origin);
  state.data = StreamState::from_json(field_of<Json>(json, "data", origin), origin);
  state.optimizer_steps = field_of<int64_t>(json, "optimizer_steps", origin);
  state.deviating_steps = field_of<std::map<std::string, int64_t>>(json, "deviating_steps", origin);
  state.skipped = field_of<int64_t>(json, "skipped", origin);
  return state;
}

WeightsToSave weights_to_save(const LoadedModel& loaded) {
  if (!loaded.lora)
    return {.layout = loaded.layout,
            .provider = weight_provider(loaded),
            .collective = is_spread(loaded),
            .files = model_side_files(loaded)};
  const auto adapter = std::make_shared<const Adapter>(adapter_of(loaded));
  return {.layout = adapter_layout(adapter->tensors),
          .provider =
              [adapter](const std::string& stored) {
                return adapter->tensors.at(stored.substr(kAdapterPrefix.size()));
              },
          .files = {{.name = kAdapterConfigFile, .content = dump_adapter_config(adapter->config)}}};
}

std::vector<OptimizerPiece> optimizer_pieces(const LoadedModel& loaded,
                                             const ShardedOptimizer& optimizer) {
  std::vector<OptimizerPiece> pieces;
  const auto exact = exactly_stored(loaded);
  for (const auto& range : optimizer.ranges()) {
    if (!range.writer) continue;
    const auto& parameter = loaded.model.parameter(range.name);
    for (const auto& [kind, name] : kKinds) {
      if (kind == StateKind::kMaster && exact.contains(range.name)) continue;
      for (const auto& part : stretches_of(parameter, range.begin, range.end)) {
        const int64_t first = part.begin_held - range.begin, length = part.end - part.begin;
        pieces.push_back(
            {.parameter = range.name,
             .kind = name,
             .shape = parameter.full_shape,
             .begin = part.begin,
             .end = part.end,
             .values = [&optimizer, range, kind, first,
                        length] { return optimizer.state(range, kind).narrow(0, first, length); },
             .slice = part.slice});
      }
    }
  }
  return pieces;
}

RunState read_run_state(const Checkpoint& checkpoint) {
  return RunState::from_json(checkpoint.state(), (checkpoint.folder / "state.json").string());
}

void restore(const Checkpoint& checkpoint, const RunState& state, LoadedModel& loaded,
             ShardedOptimizer& optimizer) {
  load_weights(loaded, checkpoint.weights());
  const OptimizerStateReader reader(checkpoint.optimizer());
  const auto exact = exactly_stored(loaded);
  for (const auto& range : optimizer.ranges()) {
    for (const auto& [kind, name] : kKinds) {
      // An exactly stored weight has come with the weights.
      if (kind == StateKind::kMaster && exact.contains(range.name) &&
          !reader.contains(range.name, name))
        continue;
      const auto values = at::empty({range.end - range.begin}, at::kFloat);
      const auto& parameter = loaded.model.parameter(range.name);
      for (const auto& part : stretches_of(parameter, range.begin, range.end)) {
        reader.read_range(range.name, name, part.begin, part.end,
                          values.narrow(0, part.begin_held - range.begin, part.end - part.begin),
                          part.slice);
      }
      optimizer.set_state(range.name, kind, range.begin, range.end, values);
    }
  }
  optimizer.set_steps(state.optimizer_steps, state.deviating_steps);
  optimizer.finish_loading();
}

}  // namespace triptych
