#include "tiny_training.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/variable.h>

#include <filesystem>

#include "base/files.h"
#include "base/format.h"
#include "kernels/embedding.h"
#include "parallel/batch_plan.h"

namespace triptych {

namespace {

// V vocabulary   D width   H hidden   T tokens of one sample
constexpr int64_t V = 40, D = 12, H = 20;

/// Reproducible values without libtorch's generator.
double noise(int64_t key) {
  auto x = static_cast<uint64_t>(key) * 0x9E3779B97F4A7C15ULL + 0x1234567;
  x ^= x >> 31;
  x *= 0xBF58476D1CE4E5B9ULL;
  x ^= x >> 27;
  return static_cast<double>(x >> 11) * 0x1.0p-53 - 0.5;
}

ParameterPtr make(const std::string& name, std::vector<int64_t> shape, int64_t key,
                  at::ScalarType dtype) {
  const auto parameter = std::make_shared<Parameter>();
  parameter->name = name;
  parameter->full_shape = shape;
  auto values = at::empty(shape, at::kFloat);
  for (int64_t i = 0; i < values.numel(); ++i) {
    values.data_ptr<float>()[i] = static_cast<float>(noise(key * 100000 + i));
  }
  parameter->value = values.to(dtype);
  return parameter;
}

struct TinySample {
  std::vector<int64_t> tokens, labels;
  bool picture = false;
};

TinySample sample_at(int64_t index) {
  TinySample sample;
  const int64_t length = 1 + index * 7 % 9;  // very unequal: hides no normalisation mistake
  for (int64_t t = 0; t < length; ++t) {
    sample.tokens.push_back(static_cast<int64_t>((noise(index * 50 + t) + 0.5) * V));
    sample.labels.push_back((index * 13 + t * 5) % V);
  }
  sample.picture = index % 6 == 1;  // with several ranks, some have none in a step
  return sample;
}

class TinyModel {
 public:
  explicit TinyModel(at::ScalarType dtype)
      : embed_(make("embed", {V, D}, 1, dtype)),
        picture_(make("picture", {D, D}, 2, dtype)),
        up_(make("up.weight", {H, D}, 3, dtype)),
        up_bias_(make("up.bias", {H}, 4, dtype)),
        unused_(make("unused", {7}, 5, dtype)),
        down_(make("down.weight", {V, H}, 6, dtype)),
        frozen_(make("frozen", {D}, 7, dtype)) {
    frozen_->trained = false;
  }
  ParameterList parameters() const {
    return {embed_, picture_, up_, up_bias_, unused_, down_, frozen_};
  }
  /// Sum of the weighted token losses of one sample.
  at::Tensor loss(const TinySample& sample, double weight) const {
    auto x_TD = embedding_rows(embed_->value, at::tensor(sample.tokens, at::kLong));
    if (sample.picture) x_TD = x_TD + at::matmul(at::tanh(x_TD), picture_->value);
    x_TD = x_TD + frozen_->value;
    const auto h_TH = at::tanh(at::linear(x_TD, up_->value, up_bias_->value));
    const auto logits_TV = at::linear(h_TH, down_->value).to(at::kFloat);
    return at::cross_entropy_loss(logits_TV, at::tensor(sample.labels, at::kLong), {},
                                  at::Reduction::Sum) *
           weight;
  }

 private:
  ParameterPtr embed_, picture_, up_, up_bias_, unused_, down_, frozen_;
};

std::vector<double> doubles(const at::Tensor& tensor) {
  const auto flat = tensor.detach().to(at::kDouble).contiguous().view(-1);
  return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
}

const std::pair<StateKind, const char*> kKinds[] = {{StateKind::kMaster, "master"},
                                                    {StateKind::kExpAvg, "exp_avg"},
                                                    {StateKind::kExpAvgSq, "exp_avg_sq"}};

/// What this rank is to write, as the checkpoint layer would.
Json state_of(const ShardedOptimizer& optimizer) {
  Json entries = Json::array();
  for (const auto& range : optimizer.ranges()) {
    if (!range.writer) continue;
    for (const auto& [kind, name] : kKinds) {
      entries.push_back({{"name", range.name},
                         {"kind", name},
                         {"begin", range.begin},
                         {"end", range.end},
                         {"values", doubles(optimizer.state(range, kind))}});
    }
  }
  return {{"steps", optimizer.steps()},
          {"deviating", optimizer.deviating_steps()},
          {"entries", entries}};
}

void load(ShardedOptimizer& optimizer, const std::string& folder) {
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    const auto json = read_json(file.path());
    for (const auto& entry : json.at("entries")) {
      const auto values = entry.at("values").get<std::vector<double>>();
      for (const auto& [kind, name] : kKinds) {
        if (entry.at("kind") != name) continue;
        optimizer.set_state(entry.at("name").get<std::string>(), kind,
                            entry.at("begin").get<int64_t>(), entry.at("end").get<int64_t>(),
                            at::tensor(values, at::kDouble).to(at::kFloat));
      }
    }
    optimizer.set_steps(json.at("steps").get<int64_t>(),
                        json.at("deviating").get<std::map<std::string, int64_t>>());
  }
  optimizer.finish_loading();
}

}  // namespace

TinyResult train_tiny(ProcessContext& process, const TinyRun& run) {
  const TinyModel model(run.bf16 ? at::kBFloat16 : at::kFloat);
  ZeroGroupChoice zero_group = ZeroGroup::kAll;
  if (run.zero_group > 0) zero_group = run.zero_group;
  ShardedOptimizer optimizer(
      model.parameters(), {.eps = 1e-4, .weight_decay = 0.1, .decay_all = run.decay_all},
      {.zero = run.zero, .bucket_elements = run.bucket_elements, .overlap = run.overlap},
      optimizer_groups(process, run.zero, zero_group));
  if (!run.load.empty()) load(optimizer, run.load);

  const BatchPlan plan{run.global_batch, run.micro_batch, process.mesh().size(MeshDim::kData)};
  const int64_t data_rank = process.coordinates()[MeshDim::kData];
  TinyResult result;
  const int64_t first = optimizer.steps();
  for (int64_t step = first; step < first + run.steps; ++step) {
    process.set_step(step);
    LabelCounts counts;
    for (int64_t g = 0; g < run.global_batch; ++g) {
      const int64_t n[] = {
          static_cast<int64_t>(sample_at(step * run.global_batch + g).labels.size())};
      counts += count_labels(n);
    }
    optimizer.begin_step(plan.micro_batches());
    double loss_sum = 0;
    for (int64_t m = 0; m < plan.micro_batches(); ++m) {
      at::Tensor loss;
      const auto backward = [&] {
        loss_sum += loss.item<double>();
        loss.backward();
        loss.reset();
      };
      for (int64_t row = 0; row < plan.micro_batch; ++row) {
        const int64_t g = step * run.global_batch + plan.sample({data_rank, m, row});
        double weight = token_weight(LossAverage::kToken, counts, {}, 0);
        if (step == run.nan_step && process.rank() == run.nan_rank) weight = std::nan("");
        const auto part = model.loss(sample_at(g), weight);
        loss = loss.defined() ? loss + part : part;
        if (run.backward_by_row || row + 1 == plan.micro_batch) backward();
      }
      optimizer.finish_micro_batch();
    }
    const auto total = at::full({1}, loss_sum, at::kDouble);
    process.group(kGradientGroup).all_reduce(total);
    const auto done = optimizer.step({.learning_rate = 1e-2, .clip_norm = run.clip_norm});
    result.losses.push_back(total.item<double>());
    result.norms.push_back(done.norm);
    result.updated.push_back(done.updated);
    if (!done.updated) break;
  }

  for (const auto& p : model.parameters()) result.weights[p->name] = doubles(p->value);
  const auto mine = state_of(optimizer);
  if (!run.save.empty()) {
    write_file_atomically(fmt::format("{}/{}.json", run.save, process.rank()), dump_json(mine));
  }
  for (const auto& text : process.world().all_gather_strings(dump_json(mine))) {
    const auto shard = parse_json(text, "shard");
    for (const auto& entry : shard.at("entries")) {
      auto& whole = result.states[fmt::format("{}/{}", entry.at("name").get<std::string>(),
                                              entry.at("kind").get<std::string>())];
      const auto begin = entry.at("begin").get<size_t>(), end = entry.at("end").get<size_t>();
      if (whole.size() < end) whole.resize(end, std::nan(""));
      const auto values = entry.at("values").get<std::vector<double>>();
      std::copy(values.begin(), values.end(), whole.begin() + static_cast<std::ptrdiff_t>(begin));
    }
  }
  return result;
}

double difference(const std::map<std::string, std::vector<double>>& a,
                  const std::map<std::string, std::vector<double>>& b) {
  double worst = a.size() == b.size() ? 0 : INFINITY;
  for (const auto& [name, values] : a) {
    const auto& others = b.at(name);
    if (values.size() != others.size()) return INFINITY;
    double largest = 1e-12, error = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      largest = std::max(largest, std::abs(values[i]));
      error = std::max(error, std::abs(values[i] - others[i]));
      if (std::isnan(values[i]) || std::isnan(others[i])) return INFINITY;
    }
    worst = std::max(worst, error / largest);
  }
  return worst;
}

Json TinyRun::to_json() const {
  return {{"global_batch", global_batch},
          {"micro_batch", micro_batch},
          {"steps", steps},
          {"zero", zero},
          {"zero_group", zero_group},
          {"bucket", bucket_elements},
          {"overlap", overlap},
          {"bf16", bf16},
          {"decay_all", decay_all},
          {"backward_by_row", backward_by_row},
          {"clip_norm", clip_norm},
          {"nan_step", nan_step},
          {"nan_rank", nan_rank},
          {"load", load},
          {"save", save},
          {"result", result}};
}

TinyRun TinyRun::from_json(const Json& json) {
  TinyRun run;
  json.at("global_batch").get_to(run.global_batch);
  json.at("micro_batch").get_to(run.micro_batch);
  json.at("steps").get_to(run.steps);
  json.at("zero").get_to(run.zero);
  json.at("zero_group").get_to(run.zero_group);
  json.at("bucket").get_to(run.bucket_elements);
  json.at("overlap").get_to(run.overlap);
  json.at("bf16").get_to(run.bf16);
  json.at("decay_all").get_to(run.decay_all);
  json.at("backward_by_row").get_to(run.backward_by_row);
  json.at("clip_norm").get_to(run.clip_norm);
  json.at("nan_step").get_to(run.nan_step);
  json.at("nan_rank").get_to(run.nan_rank);
  json.at("load").get_to(run.load);
  json.at("save").get_to(run.save);
  json.at("result").get_to(run.result);
  return run;
}

Json TinyResult::to_json() const {
  Json finite = Json::array();  // JSON has no word for NaN
  for (const double norm : norms) finite.push_back(std::isfinite(norm) ? norm : -1.0);
  Json loss = Json::array();
  for (const double l : losses) loss.push_back(std::isfinite(l) ? l : -1.0);
  return {{"losses", loss},
          {"norms", finite},
          {"updated", updated},
          {"weights", weights},
          {"states", states}};
}

TinyResult TinyResult::from_json(const Json& json) {
  TinyResult result;
  json.at("losses").get_to(result.losses);
  json.at("norms").get_to(result.norms);
  json.at("updated").get_to(result.updated);
  json.at("weights").get_to(result.weights);
  json.at("states").get_to(result.states);
  return result;
}

}  // namespace triptych
