#include "plan/suggest.h"

#include <algorithm>

#include "base/format.h"
#include "base/progress.h"
#include "plan/report.h"
#include "train/run_layers.h"
#include "train/run_layout.h"
#include "train/run_setup.h"

namespace triptych {

namespace {

/// What bounds of a layout follow from the model alone.
struct ModelFacts {
  double parameters = 0, trained = 0;
  double token_flop = 0;  ///< of training on one token of a full row
};

struct Candidate {
  RunOptions options;
  double least_bytes = 0, least_seconds = 0;
};

ModelFacts facts_of(const RunOptions& options) {
  auto request = model_request(options);
  request.meta_only = true;
  const auto loaded = load_model(request);
  const auto size = loaded.family->flow_size(typical_micro_batch(options, *loaded.family));
  return {.parameters = static_cast<double>(loaded.num_parameters()),
          .trained = static_cast<double>(loaded.num_trained()),
          .token_flop = training_flop(loaded.model, size) / static_cast<double>(size.tokens)};
}

int64_t data_ranks(const RunOptions& o, int64_t devices) {
  return devices / (o.parallel.tensor * o.parallel.context * o.parallel.pipeline);
}

/// Weights, gradients and states alone, as if cut evenly.
double least_bytes(const RunOptions& o, const ModelFacts& m, int64_t devices) {
  const auto& p = o.parallel;
  const auto cut = static_cast<double>(p.tensor * p.pipeline);
  const auto shards = static_cast<double>(data_ranks(o, devices) * p.context);
  const double weight = o.model.precision == Precision::kBf16 ? 2 : 4;
  const double states = o.model.precision == Precision::kBf16 ? 10 : 8;
  const auto shared = [&](int64_t level) { return p.zero >= level ? shards : 1.0; };
  return (m.parameters * weight / shared(3) + m.trained * (4 / shared(2) + states / shared(1))) /
         cut;
}

/// Products and bubble alone.
double least_seconds(const RunOptions& o, const ModelFacts& m, const Machine& machine,
                     int64_t devices) {
  const auto& p = o.parallel;
  const double tokens =
      static_cast<double>(o.train.global_batch) * static_cast<double>(o.data.max_length);
  const double again = o.recompute.policy == RecomputePolicy::kFull ? 4.0 / 3 : 1.0;
  const auto micro_batches =
      static_cast<double>(o.train.global_batch / (o.train.micro_batch * data_ranks(o, devices)));
  const double bubble =
      static_cast<double>(p.pipeline - 1) / (static_cast<double>(p.virtual_chunks) * micro_batches);
  return tokens * m.token_flop * again * (1 + bubble) /
         (static_cast<double>(devices) * machine.peak_flop * machine.efficiency);
}

std::vector<int64_t> divisors(int64_t n, int64_t most) {
  std::vector<int64_t> found;
  for (int64_t i = 1; i <= std::min(n, most); ++i) {
    if (n % i == 0) found.push_back(i);
  }
  return found;
}

/// Whether this build runs it on so many devices.
bool possible(const RunOptions& options, const Family& family, int64_t devices) {
  Problems problems;
  validate(options, problems);
  check_supported(options, problems);
  if (problems.messages().empty()) validate_layout(options, family, devices, problems);
  return problems.messages().empty();
}

std::vector<RunOptions> layouts(const RunOptions& given, const Machine& machine, int64_t devices) {
  std::vector<RunOptions> all;
  // A rank should keep 2048 tokens of a row: below, exchanges and launches cost more than they
  // save.
  const int64_t most_context = std::max<int64_t>(1, given.data.max_length / 2048);
  for (const auto tensor : divisors(devices, machine.devices_per_host)) {
    for (const auto context : divisors(devices / tensor, most_context)) {
      for (const auto pipeline : divisors(devices / tensor / context, 16)) {
        for (const int64_t chunks : {1, 2, 4}) {
          if (chunks > 1 && pipeline == 1) continue;
          for (int64_t zero = 1; zero <= 3; ++zero) {
            for (const auto policy : {RecomputePolicy::kNone, RecomputePolicy::kFull}) {
              auto o = given;
              auto& p = o.parallel;
              p.tensor = tensor;
              p.sequence = tensor > 1;
              p.context = context;
              p.context_algorithm = ContextAlgorithm::kHybrid;
              p.pipeline = pipeline;
              p.virtual_chunks = chunks;
              p.zero = zero;
              p.vision_layers = p.text_layers = Auto::kAuto;
              o.recompute = {};
              o.recompute.policy = policy;
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
  if (o.recompute.policy == RecomputePolicy::kFull) add("recompute full");
  return text;
}

/// The largest part of the fullest rank, or of the step.
std::string reason(const Suggestion& s, int64_t limit) {
  if (!s.fits) {
    const auto& fullest = *std::max_element(
        s.plan.ranks.begin(), s.plan.ranks.end(),
        [](const auto& a, const auto& b) { return a.total_bytes() < b.total_bytes(); });
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
      {t.gradients, "exchange of gradients"},    {t.optimizer, "optimizer"}};
  const auto& most = *std::max_element(std::begin(parts), std::end(parts));
  return fmt::format("products {:.0f} % of the step, then {} {:.0f} %", 100 * t.compute / t.step,
                     most.second, 100 * most.first / t.step);
}

}  // namespace

Suggestions suggest(const RunOptions& given, const Machine& machine,
                    const SuggestRequest& request) {
  const auto base = without_weights(given);
  const auto family = read_family(model_request(base));
  const auto facts = facts_of(base);
  const auto limit =
      static_cast<int64_t>(static_cast<double>(request.memory_bytes) * request.share);
  Suggestions found;
  std::vector<Candidate> candidates;
  for (auto& options : layouts(base, machine, request.devices)) {
    const auto& p = options.parallel;
    const int64_t data = data_ranks(options, request.devices);
    // Sharding more over one rank is the same layout again.
    if (p.zero > 1 && data * p.context == 1) continue;
    if (options.train.global_batch % (options.train.micro_batch * data) != 0 ||
        !possible(options, *family, request.devices)) {
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
  for (auto& candidate : candidates) {
    const bool enough = found.fitting.size() >= request.count &&
                        candidate.least_seconds > found.fitting[request.count - 1].time.step;
    if (enough || found.tried >= static_cast<int64_t>(request.most_plans)) {
      ++found.left_out;
      continue;
    }
    ++found.tried;
    Suggestion s{.options = std::move(candidate.options)};
    s.name = name_of_layout(s.options, request.devices);
    s.plan = plan_stages(s.options, request.devices, machine.devices_per_host);
    s.time = predict_step(s.options, s.plan, machine);
    for (const auto& rank : s.plan.ranks)
      s.bytes = std::max({s.bytes, rank.total_bytes(), rank.start_bytes});
    s.fits = s.bytes <= limit;
    s.why = reason(s, limit);
    auto& list = s.fits ? found.fitting : found.others;
    list.push_back(std::move(s));
    std::stable_sort(found.fitting.begin(), found.fitting.end(),
                     [](const auto& a, const auto& b) { return a.time.step < b.time.step; });
  }
  std::stable_sort(found.others.begin(), found.others.end(),
                   [](const auto& a, const auto& b) { return a.bytes < b.bytes; });
  return found;
}

std::string layout_toml(const RunOptions& o) {
  const auto& p = o.parallel;
  auto text = fmt::format("[parallel]\ntensor = {}\nsequence = {}\npipeline = {}\nvirtual = {}\n",
                          p.tensor, p.sequence, p.pipeline, p.virtual_chunks);
  text += fmt::format("context = {}\n", p.context);
  if (p.context > 1) text += "context_algorithm = \"hybrid\"\n";
  text += fmt::format("zero = {}\n\n[recompute]\npolicy = \"{}\"\n", p.zero,
                      name_of(o.recompute.policy));
  return text;
}

std::string suggestions_text(const Suggestions& found, const Machine& machine,
                             const SuggestRequest& request) {
  auto text = fmt::format(
      "{} layouts of {} devices with {} run; {} slower or larger at best, {} impossible\n",
      found.tried, request.devices, bytes_text(static_cast<double>(request.memory_bytes)),
      found.left_out, found.impossible);
  size_t number = 0;
  for (const auto& s : found.fitting) {
    if (number == request.count) break;
    text +=
        fmt::format("\n{}. {}: {:.3g} s a step on {}, {} tokens/s, {} of {}\n   {}\n\n", ++number,
                    s.name, s.time.step, machine.name, short_count(s.time.tokens_per_second),
                    bytes_text(static_cast<double>(s.bytes)),
                    bytes_text(static_cast<double>(request.memory_bytes)), s.why);
    text += layout_toml(s.options);
  }
  if (found.fitting.empty()) {
    text +=
        "\nnone fits: more devices, a shorter data.max_length, LoRA or freezing would change "
        "that\n";
  }
  if (!found.others.empty()) text += "\ndo not fit\n";
  for (size_t i = 0; i < std::min<size_t>(8, found.others.size()); ++i)
    text += fmt::format("  {}: {}\n", found.others[i].name, found.others[i].why);
  return text;
}

Json suggestions_json(const Suggestions& found) {
  const auto list = [](const std::vector<Suggestion>& suggestions) {
    Json json = Json::array();
    for (const auto& s : suggestions) {
      json.push_back({{"layout", s.name},
                      {"step_seconds", s.time.step},
                      {"tokens_per_second", s.time.tokens_per_second},
                      {"mfu", s.time.mfu},
                      {"bytes", s.bytes},
                      {"why", s.why},
                      {"toml", layout_toml(s.options)}});
    }
    return json;
  };
  return {{"fitting", list(found.fitting)},
          {"not_fitting", list(found.others)},
          {"tried", found.tried},
          {"left_out", found.left_out},
          {"impossible", found.impossible}};
}

}  // namespace triptych
