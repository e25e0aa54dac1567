#include "equality.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "base/files.h"
#include "base/format.h"
#include "checkpoint/safetensors.h"
#include "parallel/launch_environment.h"
#include "ranks.h"
#include "support/scratch.h"
#include "tiny_qwen.h"
#include "tiny_video.h"
#include "train/run_layout.h"
#include "train/run_setup.h"
#include "train/stage.h"

namespace triptych {

namespace {

namespace fs = std::filesystem;

/// What every run has in common. Adam amplifies small gradients: its epsilon is large enough that
/// rounding does not decide the direction of an update.
constexpr const char* kRunFile = R"(
output = "run"
seed = 3
threads = 1
[model]
path = "model"
weights = "random"
precision = "fp32"
[[data.train]]
path = "unused.jsonl"
[train]
steps = 5
global_batch = 4
micro_batch = 1
[optimizer]
lr = 2e-3
eps = 1e-4
weight_decay = 0.1
clip_norm = 0.5
[parallel]
bucket_elements = 3000
[log]
tensorboard = false
)";

bool is_layout(const std::string& assignment) {
  return assignment.starts_with("parallel.") || assignment.starts_with("recompute");
}

/// A tensor of random values by name, the same on every rank: a fresh adapter's B is zero, which
/// would leave A without a gradient.
void fill_adapters(const LoadedModel& loaded) {
  const at::NoGradGuard no_grad;
  for (const auto& p : loaded.model.parameters) {
    if (!p->on_stage || !p->name.ends_with(".lora_B.weight")) continue;
    auto copy = *p;
    copy.held.clear();
    copy.value = at::empty(p->full_shape, at::TensorOptions(at::kMeta).dtype(at::kFloat));
    copy.init = {Parameter::Init::Kind::kNormal, 0.1};
    const auto whole = std::make_shared<Parameter>(copy);
    initialise({whole}, 17, at::kCPU);
    set_value(loaded, *p, part_of(*p, whole->value.detach()));
  }
}

void make_mistake(const LoadedModel& loaded, const std::string& mistake) {
  for (const auto& p : loaded.model.parameters) {
    if (mistake == "no sums") p->placement.sum_over_tensor = false;
    if (mistake == "no copies' sums") p->copies = 1;
    if (mistake == "counted twice") p->first_copy = true;
    if (mistake == "counted by each stage" && p->on_stage) p->owner = loaded.pipeline->rank();
  }
}

/// This rank's gradients as it holds them, with where they lie.
void dump_gradients(const LoadedModel& loaded, const ShardedOptimizer& optimizer,
                    const fs::path& stem) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  Json index = Json::array();
  for (const auto& range : optimizer.ranges()) {
    const auto& p = loaded.model.parameter(range.name);
    Json held = Json::array();
    for (const auto& part : p.held) held.push_back({part.start, part.length});
    index.push_back({{"name", p.name},
                     {"shape", p.full_shape},
                     {"dim", p.held.empty() ? 0 : p.placement.split->dim},
                     {"held", held},
                     {"begin", range.begin},
                     {"end", range.end}});
    tensors.emplace_back(std::to_string(tensors.size()), optimizer.gradient(range).clone());
  }
  save_safetensors(stem.string() + ".safetensors", tensors);
  write_file_atomically(stem.string() + ".json", dump_json(index));
}

/// Numbers of the elements, in the whole flattened parameter, of an entry of the index.
at::Tensor elements_of(const Json& entry) {
  const auto shape = entry.at("shape").get<std::vector<int64_t>>();
  int64_t count = 1;
  for (const auto size : shape) count *= size;
  auto numbers = at::arange(count).view(shape);
  const auto dim = entry.at("dim").get<int64_t>();
  std::vector<at::Tensor> parts;
  for (const auto& part : entry.at("held"))
    parts.push_back(numbers.narrow(dim, part[0].get<int64_t>(), part[1].get<int64_t>()));
  if (!parts.empty()) numbers = at::cat(parts, dim);
  const auto begin = entry.at("begin").get<int64_t>(), end = entry.at("end").get<int64_t>();
  return numbers.reshape(-1).slice(0, begin, end);
}

/// Puts the ranks' pieces together.
std::map<std::string, at::Tensor> assemble(const fs::path& folder, int ranks) {
  std::map<std::string, at::Tensor> gradients;
  std::map<std::string, std::vector<int64_t>> shapes;
  for (int rank = 0; rank < ranks; ++rank) {
    const auto stem = folder / fmt::format("gradients_{}", rank);
    const auto file = SafetensorsFile::open(stem.string() + ".safetensors");
    const auto index = read_json(stem.string() + ".json");
    for (size_t i = 0; i < index.size(); ++i) {
      const auto& entry = index[i];
      const auto name = entry.at("name").get<std::string>();
      const auto values = file->read(std::to_string(i), at::kDouble);
      const auto elements = elements_of(entry);
      shapes[name] = entry.at("shape").get<std::vector<int64_t>>();
      auto& whole = gradients[name];
      if (!whole.defined()) {
        whole = at::full(shapes[name], std::nan(""), at::kDouble).view(-1);
      }
      const auto before = whole.index_select(0, elements);
      const auto error = (before - values).abs().nan_to_num(0).max().item<double>();
      if (error > 1e-6 * std::max(1e-6, values.abs().max().item<double>())) {
        throw std::runtime_error(fmt::format(
            "'{}': rank {} has another gradient than a rank before, by {}", name, rank, error));
      }
      whole.index_copy_(0, elements, values);
    }
  }
  for (auto& [name, whole] : gradients) {
    if (whole.isnan().any().item<bool>())
      throw std::runtime_error("'" + name + "': no rank holds some of its gradient, or it is NaN");
    whole = whole.view(shapes[name]);
  }
  return gradients;
}

}  // namespace

int equality_rank(const Json& config) {
  const fs::path folder = config.at("folder").get<std::string>();
  const auto assignments = config.at("set").get<std::vector<std::string>>();
  const auto run = read_run_options(
      {.file = folder / "run.toml", .environment = nullptr, .assignments = assignments});
  const auto& options = run.options;
  ProcessContext process(read_launch_environment(), process_options(options));
  const bool video = config.at("video").get<bool>();
  auto family = video ? make_tiny_video() : read_family(model_request(options));
  process.set_mesh(check_layout(options, *family, process.world_size()).mesh);

  const auto loaded = load_part(process, options, at::kCPU, std::move(family));
  fill_adapters(loaded);
  make_mistake(loaded, config.at("mistake").get<std::string>());
  auto groups = optimizer_groups(process, options, loaded);
  if (config.at("mistake") == "no sums of tied weights") groups.shared.clear();
  ShardedOptimizer optimizer(loaded.model.parameters, adamw_settings(options.optimizer),
                             sharding_settings(options), groups);
  const auto stage = Stage::make(process, options, loaded, at::kCPU);
  bool first = true;
  auto settings = step_settings(options, loaded, at::kCPU);
  settings.before_update = [&] {
    if (first)
      dump_gradients(loaded, optimizer, folder / fmt::format("gradients_{}", process.rank()));
    first = false;
  };
  TrainStep train_step(loaded, optimizer, process.group({MeshDim::kData}), settings, stage.get());

  const BatchPlan plan{options.train.global_batch, options.train.micro_batch,
                       process.mesh().size(MeshDim::kData)};
  const int64_t data_rank = process.coordinates()[MeshDim::kData];
  Json losses = Json::array(), norms = Json::array();
  for (int64_t step = 0; step < options.train.steps; ++step) {
    process.set_step(step + 1);
    std::vector<MicroBatch> micro_batches(static_cast<size_t>(plan.micro_batches()));
    for (int64_t m = 0; m < plan.micro_batches(); ++m) {
      for (int64_t row = 0; row < plan.micro_batch; ++row) {
        const int64_t g = step * plan.global_batch + plan.sample({data_rank, m, row});
        micro_batches[static_cast<size_t>(m)].rows.push_back(video ? tiny_video_row(g)
                                                                   : tiny_row(g));
      }
    }
    const auto report = train_step.run(micro_batches, step + 1, options.optimizer.lr);
    losses.push_back(report.loss);
    norms.push_back(report.norm);
  }
  write_file_atomically(folder / fmt::format("curve_{}.json", process.rank()),
                        dump_json(Json{{"losses", losses}, {"norms", norms}}));
  process.close();
  return 0;
}

TrainedTiny train_row(const EqualityRow& row, bool bf16) {
  const Scratch folder;
  fs::create_directories(folder / "model");
  auto set = row.set;
  const bool video = row.model == TinyModel::kVideo;
  const bool tied = std::erase(set, "tiny.tied=true") > 0,
             one_head = std::erase(set, "tiny.key_value_heads=1") > 0;
  if (video) {
    write_file_atomically(folder / "model" / "config.json", dump_json(make_tiny_video()->config()));
    // the diffusion loss: the mean over samples of each one's mean over its video tokens
    set.insert(set.begin(), "train.loss_average=sample");
  } else {
    write_tiny_qwen(folder / "model", {.tied = tied, .key_value_heads = one_head ? 1 : 2});
  }
  write_file_atomically(folder / "run.toml", kRunFile);
  if (bf16) set.emplace_back("train.steps=2");
  set.push_back("output=" + (folder / "run").string());
  set.push_back("model.path=" + (folder / "model").string());
  if (bf16) set.emplace_back("model.precision=bf16");
  const auto started = testing_ranks::run_ranks(row.processes, "equality",
                                                {{"folder", folder.path().string()},
                                                 {"set", set},
                                                 {"mistake", row.mistake},
                                                 {"video", video}},
                                                120);
  std::string failed;  // all of them: which one was at fault shows in no single text
  for (size_t rank = 0; rank < started.ranks.size(); ++rank) {
    const auto& end = started.ranks[rank];
    if (end.status != 0)
      failed += fmt::format("\nrank {} ended with {}:\n{}", rank, end.status, end.output);
  }
  if (!failed.empty()) throw std::runtime_error(row.name + ": " + failed);
  TrainedTiny result{.gradients = assemble(folder.path(), row.processes)};
  for (int rank = 0; rank < row.processes; ++rank) {
    const auto curve = read_json(folder / fmt::format("curve_{}.json", rank));
    const auto losses = curve.at("losses").get<std::vector<double>>();
    if (rank > 0 && losses != result.losses)
      throw std::runtime_error(fmt::format("{}: rank {} reports another loss", row.name, rank));
    result.losses = losses;
    result.norms = curve.at("norms").get<std::vector<double>>();
  }
  return result;
}

const TrainedTiny& train_alone(const EqualityRow& row, bool bf16) {
  static std::map<std::tuple<TinyModel, std::vector<std::string>, bool>, TrainedTiny> done;
  EqualityRow plain{.name = "one process for " + row.name, .set = row.set, .model = row.model};
  std::erase_if(plain.set, is_layout);
  const auto [at, fresh] = done.try_emplace({row.model, plain.set, bf16});
  if (fresh) at->second = train_row(plain, bf16);
  return at->second;
}

Deviation compare(const TrainedTiny& got, const TrainedTiny& want) {
  Deviation result;
  const auto relative = [](double a, double b) { return std::abs(a - b) / std::abs(b); };
  if (got.losses.empty() || got.losses.size() > want.losses.size() ||
      got.gradients.size() != want.gradients.size())
    throw std::runtime_error("other numbers of steps or trained parameters");
  for (size_t i = 0; i < got.losses.size(); ++i) {
    result.loss = std::max(result.loss, relative(got.losses[i], want.losses[i]));
    result.norm = std::max(result.norm, relative(got.norms[i], want.norms[i]));
  }
  double errors = 0, squares = 0;
  for (const auto& [name, gradient] : want.gradients) {
    const double error = (got.gradients.at(name) - gradient).norm().item<double>();
    const double norm = gradient.norm().item<double>();
    errors += error * error;
    squares += norm * norm;
    if (!(error / norm <= result.gradient)) {
      result.gradient = error / norm;
      result.worst = name;
    }
  }
  result.all_gradients = std::sqrt(errors / squares);
  return result;
}

}  // namespace triptych
