#include "plan/suggest.h"

#include <algorithm>
#include <deque>
#include <tuple>
#include <utility>

#include "base/format.h"
#include "base/option_io.h"
#include "base/progress.h"
#include "train/run_layers.h"
#include "train/run_layout.h"
#include "train/run_setup.h"
#include "train/stage.h"

namespace triptych {

namespace {

/// What bounds of a layout follow from the model alone.
struct ModelFacts {
  double parameters = 0, trained = 0;
  double step_tokens = 0;
  /// Flop of one token of a step, in the parts of a pipeline's slots.
  SlotTimes token_flop{.forward = 0, .backward_input = 0, .backward_weight = 0};
  double recomputed = 0;  ///< of one token, where all blocks are computed again
};

bool same_options(ConstOptionsRef a, ConstOptionsRef b) {
  return options_json(a) == options_json(b);
}

struct Candidate {
  RunOptions options;
  double least_bytes = 0, least_seconds = 0;
  bool done = false;
};

ModelFacts facts_of(const RunOptions& options, const PlanData* data) {
  auto request = model_request(options);
  request.meta_only = true;
  const auto loaded = load_model(request);
  MicroBatch step;  // a typical row stands for all
  if (data == nullptr) {
    step.rows.push_back(loaded.family->typical_row(options.data.max_length));
  } else {
    step.rows = data->rows.steps.front();
  }
  const auto size = loaded.family->flow_size(step);
  ModelFacts facts{.parameters = static_cast<double>(loaded.num_parameters()),
                   .trained = static_cast<double>(loaded.num_trained()),
                   .step_tokens = static_cast<double>(size.tokens)};
  if (data == nullptr) facts.step_tokens *= static_cast<double>(options.train.global_batch);
  bool gradients_pass = false;
  for (const auto& layer : loaded.model.layers) {
    bool trained = false, weights = false;
    for (const auto& p : layer->parameters()) {
      trained = trained || p->trained;
      weights = weights || (p->trained && p->name.find(".lora_") == std::string::npos);
    }
    const double flop = layer->cost(size).forward_flop / static_cast<double>(size.tokens);
    facts.token_flop.forward += flop;
    facts.token_flop.backward_input += gradients_pass ? flop : 0;
    facts.token_flop.backward_weight += weights ? flop : 0;
    if ((gradients_pass || trained) && loaded.family->is_block(*layer)) facts.recomputed += flop;
    gradients_pass = gradients_pass || trained;
  }
  return facts;
}

int64_t data_ranks(const RunOptions& o, int64_t devices) {
  return devices / (o.parallel.tensor * o.parallel.context * o.parallel.pipeline);
}

/// Weights, gradients and states alone, as if cut evenly.
double least_bytes(const RunOptions& o, const ModelFacts& m, int64_t devices) {
  const auto& p = o.parallel;
  const auto cut = static_cast<double>(p.tensor * p.pipeline);
  const int64_t sharing = data_ranks(o, devices) * p.context;
  const bool bf16 = o.model.precision == Precision::kBf16;
  const double weight = bf16 ? 2 : 4;
  const bool host_states = o.optimizer.offload && o.device != DeviceKind::kCpu;
  const double states = host_states ? 0 : bf16 ? 10 : 8;
  // One rank with one micro-batch uses gradients where autograd left them; others sum in fp32.
  const bool sums = sharing > 1 || pipeline_shape(o, data_ranks(o, devices)).micro_batches > 1;
  const double gradient = sums ? 4 : weight;
  const auto shared = [&](int64_t level) {
    return p.zero >= level ? static_cast<double>(sharing) : 1.0;
  };
  return (m.parameters * weight / shared(3) +
          m.trained * (gradient / shared(2) + states / shared(1))) /
         cut;
}

/// Products and bubble alone, all of them as fast as the best of them.
double least_seconds(const RunOptions& o, const ModelFacts& m, const Machine& machine,
                     int64_t devices) {
  auto flop = m.token_flop;
  // Other policies compute less again; how much depends on their settings.
  if (same_options(o.recompute, RecomputeOptions{.policy = RecomputePolicy::kFull}))
    flop.backward_input += m.recomputed;
  const double all = flop.forward + flop.backward_input + flop.backward_weight;
  const double bubble =
      std::max(0.0, bubble_formula(pipeline_shape(o, data_ranks(o, devices)), flop));
  const double efficiency =
      std::max({machine.matmul_efficiency, machine.attention_forward_efficiency,
                machine.attention_backward_efficiency});
  return m.step_tokens * all * (1 + bubble) /
         (static_cast<double>(devices) * machine.peak_flop * efficiency);
}

std::vector<int64_t> divisors(int64_t n, int64_t most) {
  std::vector<int64_t> found;
  for (int64_t i = 1; i <= std::min(n, most); ++i) {
    if (n % i == 0) found.push_back(i);
  }
  return found;
}

/// Whether this build runs it on so many devices.
bool possible(const RunOptions& options, const Family& family, int64_t devices, int64_t per_host) {
  Problems problems;
  validate(options, problems);
  check_supported(options, problems);
  if (problems.messages().empty()) validate_layout(options, family, devices, problems, per_host);
  return problems.messages().empty();
}

/// Nothing, all blocks, and what the run file says where that is something else.
std::vector<RecomputeOptions> recompute_choices(const RunOptions& given) {
  std::vector<RecomputeOptions> choices{{}, {.policy = RecomputePolicy::kFull}};
  if (!same_options(given.recompute, choices[0]) && !same_options(given.recompute, choices[1]))
    choices.push_back(given.recompute);
  return choices;
}

std::vector<RunOptions> layouts(const RunOptions& given, const Machine& machine, int64_t devices) {
  std::vector<RunOptions> all;
  const auto recomputes = recompute_choices(given);
  // A rank should keep 2048 tokens of a row: below, exchanges and launches cost more than they
  // save.
  const int64_t most_context = std::max<int64_t>(1, given.data.max_length / 2048);
  for (const auto tensor : divisors(devices, machine.devices_per_host)) {
    for (const auto context : divisors(devices / tensor, most_context)) {
      for (const auto pipeline : divisors(devices / tensor / context, 16)) {
        for (const int64_t chunks : {1, 2, 4}) {
          if (chunks > 1 && pipeline == 1) continue;
          for (int64_t zero = 1; zero <= 3; ++zero) {
            for (const auto& recompute : recomputes) {
              auto o = given;
              auto& p = o.parallel;
              p.tensor = tensor;
              p.sequence = tensor > 1;
              p.context = context;
              if (context > 1) p.context_algorithm = ContextAlgorithm::kHybrid;
              p.ulysses_degree = 0;
              p.pipeline = pipeline;
              p.virtual_chunks = chunks;
              p.zero = zero;
              p.vision_layers = p.text_layers = p.transformer_layers = Auto::kAuto;
              o.recompute = recompute;
              all.push_back(std::move(o));
            }
          }
        }
      }
    }
  }
  return all;
}

std::string name_of_layout(const RunOptions& o, int64_t devices) {
  const auto& p = o.parallel;
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  if (p.tensor > 1) add(fmt::format("tensor {}", p.tensor));
  if (p.context > 1) add(fmt::format("context {}", p.context));
  if (p.pipeline > 1) add(fmt::format("pipeline {}", p.pipeline));
  if (p.virtual_chunks > 1) add(fmt::format("virtual {}", p.virtual_chunks));
  add(fmt::format("data {}", data_ranks(o, devices)));
  add(fmt::format("zero {}", p.zero));
  if (o.recompute.policy != RecomputePolicy::kNone)
    add(fmt::format("recompute {}", name_of(o.recompute.policy)));
  return text;
}

/// The largest part of the fullest rank, or of the step.
std::string reason(const Suggestion& s, int64_t limit) {
  if (!s.fits) {
    const auto& fullest = *std::max_element(
        s.plan.ranks.begin(), s.plan.ranks.end(),
        [](const auto& a, const auto& b) { return a.most_bytes() < b.most_bytes(); });
    size_t most = 0;
    for (size_t k = 0; k < kMetaMemoryKinds; ++k) {
      if (fullest.memory.bytes[k] > fullest.memory.bytes[most]) most = k;
    }
    return fmt::format("rank {} needs {}, {} more than there is; {} of it are {}", fullest.rank,
                       bytes_text(static_cast<double>(s.bytes)),
                       bytes_text(static_cast<double>(s.bytes - limit)),
                       bytes_text(static_cast<double>(fullest.memory.bytes[most])),
                       option_names(MetaMemoryKind())[most]);
  }
  const auto& t = s.time;
  const std::pair<double, const char*> parts[] = {
      {t.memory, "memory traffic of operators"}, {t.launches, "kernel launches"},
      {t.layers, "exchanges inside layers"},     {t.bubble, "pipeline bubble"},
      {t.gradients, "exchange of gradients"},    {t.optimizer, "optimizer"},
      {t.offload, "copies to the host"},         {t.data, "waiting for data"}};
  const auto& most = *std::max_element(std::begin(parts), std::end(parts));
  return fmt::format("products {:.0f} % of the step, then {} {:.0f} %", 100 * t.compute / t.step,
                     most.second, 100 * most.first / t.step);
}

/// The layouts that are left, in the order in which they are tried.
class Search {
 public:
  /// @param candidates  by least time
  explicit Search(std::vector<Candidate> candidates) : candidates_(std::move(candidates)) {}

  /// The next one; null when none is left. What a layout that did not fit speaks for comes first,
  /// then the least time, or with `smallest` the fewest bytes.
  Candidate* next(bool smallest) {
    auto* best = first_in_line();
    if (best == nullptr) best = smallest ? with_fewest_bytes() : with_least_time();
    if (best != nullptr) best->done = true;
    return best;
  }

  /// It does not fit: the same with recompute is next, and what shards less cannot fit either.
  /// @return how many are left out for that
  int64_t too_large(const Candidate& tried) {
    int64_t left_out = 0;
    for (size_t i = 0; i < candidates_.size(); ++i) {
      auto& c = candidates_[i];
      if (c.done || !same_mesh(c.options.parallel, tried.options.parallel)) continue;
      const bool same_recompute = same_options(c.options.recompute, tried.options.recompute);
      if (same_recompute && c.options.parallel.zero < tried.options.parallel.zero) {
        c.done = true;
        ++left_out;
      } else if (!same_recompute && c.options.recompute.policy == RecomputePolicy::kFull &&
                 c.options.parallel.zero == tried.options.parallel.zero) {
        first_.push_front(i);
      }
    }
    return left_out;
  }

 private:
  Candidate* first_in_line() {
    while (!first_.empty()) {
      auto& candidate = candidates_[first_.front()];
      first_.pop_front();
      if (!candidate.done) return &candidate;
    }
    return nullptr;
  }
  Candidate* with_least_time() {
    const auto it = std::ranges::find(candidates_, false, &Candidate::done);
    return it == candidates_.end() ? nullptr : &*it;
  }
  /// Of those that compute all blocks again, if there are any: what they keep is least.
  Candidate* with_fewest_bytes() {
    const auto size = [](const Candidate& c) {
      return std::tuple(c.done, c.options.recompute.policy != RecomputePolicy::kFull,
                        c.least_bytes);
    };
    const auto it = std::ranges::min_element(candidates_, {}, size);
    return it == candidates_.end() || it->done ? nullptr : &*it;
  }

  static bool same_mesh(const ParallelOptions& a, const ParallelOptions& b) {
    return a.tensor == b.tensor && a.context == b.context && a.pipeline == b.pipeline &&
           a.virtual_chunks == b.virtual_chunks;
  }

  std::vector<Candidate> candidates_;
  std::deque<size_t> first_;
};

/// The layouts that may be possible and may fit, by least time; counts the others.
std::vector<Candidate> candidates_of(const RunOptions& base, const Machine& machine,
                                     const SuggestRequest& request, int64_t limit,
                                     const PlanData* data, Suggestions& found) {
  const auto family = read_family(model_request(base));
  const auto facts = facts_of(base, data);
  std::vector<Candidate> candidates;
  for (auto& options : layouts(base, machine, request.devices)) {
    const auto& p = options.parallel;
    const int64_t data = data_ranks(options, request.devices);
    // Sharding more over one rank is the same layout again.
    if (p.zero > 1 && data * p.context == 1) continue;
    if (options.train.global_batch % (options.train.micro_batch * data) != 0 ||
        !possible(options, *family, request.devices, machine.devices_per_host)) {
      ++found.impossible;
      continue;
    }
    const double bytes = least_bytes(options, facts, request.devices);
    if (bytes > static_cast<double>(limit)) {
      ++found.left_out;
      continue;
    }
    const double seconds = least_seconds(options, facts, machine, request.devices);
    candidates.push_back({std::move(options), bytes, seconds});
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const auto& a, const auto& b) { return a.least_seconds < b.least_seconds; });
  return candidates;
}

}  // namespace

Suggestions suggest(const RunOptions& given, const Machine& machine, const SuggestRequest& request,
                    const PlanData* data) {
  const auto base = without_weights(given);
  const auto limit =
      static_cast<int64_t>(static_cast<double>(request.memory_bytes) * request.share);
  Suggestions found;
  if (data != nullptr) found.data = data->summary;
  Search search(candidates_of(base, machine, request, limit, data, found));
  const auto most = static_cast<int64_t>(request.most_plans);
  for (;;) {
    const bool none_fits = found.fitting.empty();
    // Half of the tries go by time alone; then whatever fits at all is better than nothing.
    const auto* candidate = search.next(none_fits && found.tried >= most / 2);
    if (candidate == nullptr) break;
    if (found.fitting.size() >= request.count &&
        candidate->least_seconds > found.fitting[request.count - 1].time.step) {
      ++found.left_out;
      continue;
    }
    if (found.tried >= (none_fits ? 2 * most : most)) {
      ++found.untried;
      continue;
    }
    Suggestion s{.options = candidate->options};
    s.name = name_of_layout(s.options, request.devices);
    try {
      s.plan = plan_stages(s.options, request.devices, machine.devices_per_host, data);
    } catch (const UsageError&) {  // a rule that only its own ranks know
      ++found.impossible;
      continue;
    }
    ++found.tried;
    s.time = predict_step(s.options, s.plan, machine);
    for (const auto& rank : s.plan.ranks) s.bytes = std::max(s.bytes, rank.most_bytes());
    s.fits = s.bytes <= limit;
    s.why = reason(s, limit);
    s.toml = layout_toml(s.options, given);
    if (!s.fits) found.left_out += search.too_large(*candidate);
    auto& list = s.fits ? found.fitting : found.others;
    list.push_back(std::move(s));
    std::stable_sort(found.fitting.begin(), found.fitting.end(),
                     [](const auto& a, const auto& b) { return a.time.step < b.time.step; });
  }
  std::stable_sort(found.others.begin(), found.others.end(),
                   [](const auto& a, const auto& b) { return a.bytes < b.bytes; });
  return found;
}

}  // namespace triptych
