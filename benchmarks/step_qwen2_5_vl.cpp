// One full training step of a (scaled) Qwen2.5-VL: forward, backward, fp32 AdamW on bf16 weights.
// Takes the flags of benchmarks/reference/baseline_qwen2_5_vl.py, makes the same input, counts flop
// with the same formula and prints the same JSON keys, so that the two lines can be compared.

#include <ATen/Parallel.h>
#include <ATen/ops/randn.h>
#include <ATen/record_function.h>
#include <torch/version.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>

#include "base/clock.h"
#include "base/error.h"
#include "base/format.h"
#include "base/json.h"
#include "base/memory.h"
#include "kernels/cpu_allocator.h"
#include "models/qwen2_5_vl/fields.h"
#include "models/qwen2_5_vl/model.h"
#include "parallel/sharded_optimizer.h"
#include "train/matrix_peak.h"
#include "train/run_layers.h"

namespace triptych {
namespace {

namespace qwen = qwen2_5_vl;

struct Settings {
  int64_t threads = 2, batch = 1, steps = 5, warmup = 2, seed = 0, profile = 0;
  std::string dtype = "bf16", optimizer = "master-fused", device = "cpu", preset, note;
  bool checkpointing = false, train_vit = false;
  int64_t hidden = 1024, layers = 8, heads = 8, kv_heads = 2, inter = 4096, vocab = 151936;
  int64_t vit_depth = 8, vit_hidden = 1280, vit_heads = 16, vit_inter = 3420;
  int64_t image = 512, seq = 560;

  int64_t head() const { return hidden / heads; }
  int64_t grid() const { return std::max<int64_t>(2, std::lround(double(image) / 28) * 2); }
  int64_t patches() const { return grid() * grid(); }
  int64_t image_tokens() const { return patches() / 4; }
  at::ScalarType type() const { return dtype == "bf16" ? at::kBFloat16 : at::kFloat; }
};

/// Real widths; a width given by a flag stands.
void apply_preset(Settings& s, const std::set<std::string>& given) {
  if (s.preset.empty()) return;
  require<UsageError>(s.preset == "3b" || s.preset == "7b", "--preset is 3b or 7b");
  const auto options = qwen::preset("qwen2_5_vl_" + s.preset);
  const auto take = [&](const char* flag, int64_t& field, int64_t value) {
    if (!given.contains(flag)) field = value;
  };
  take("--hidden", s.hidden, options.text.hidden_size);
  take("--layers", s.layers, options.text.num_hidden_layers);
  take("--heads", s.heads, options.text.num_attention_heads);
  take("--kv-heads", s.kv_heads, options.text.num_key_value_heads);
  take("--inter", s.inter, options.text.intermediate_size);
  take("--vit-depth", s.vit_depth, options.vision.depth);
  take("--vit-hidden", s.vit_hidden, options.vision.hidden_size);
  take("--vit-inter", s.vit_inter, options.vision.intermediate_size);
}

Settings parse(int argc, char** argv) {
  Settings s;
  std::string ignored;
  bool compile = false;
  const std::map<std::string, int64_t*> numbers = {
      {"--threads", &s.threads},     {"--batch", &s.batch},
      {"--steps", &s.steps},         {"--warmup", &s.warmup},
      {"--seed", &s.seed},           {"--profile", &s.profile},
      {"--hidden", &s.hidden},       {"--layers", &s.layers},
      {"--heads", &s.heads},         {"--kv-heads", &s.kv_heads},
      {"--inter", &s.inter},         {"--vocab", &s.vocab},
      {"--vit-depth", &s.vit_depth}, {"--vit-hidden", &s.vit_hidden},
      {"--vit-heads", &s.vit_heads}, {"--vit-inter", &s.vit_inter},
      {"--image", &s.image},         {"--seq", &s.seq}};
  // --attn and --compile choose among the reference's implementations; there is one here.
  const std::map<std::string, std::string*> words = {
      {"--dtype", &s.dtype},   {"--optimizer", &s.optimizer}, {"--device", &s.device},
      {"--preset", &s.preset}, {"--note", &s.note},           {"--attn", &ignored}};
  const std::map<std::string, bool*> switches = {{"--checkpointing", &s.checkpointing},
                                                 {"--train-vit", &s.train_vit},
                                                 {"--compile", &compile}};
  const auto print_help = [&] {
    fmt::print("One full training step of a scaled Qwen2.5-VL, as one line of JSON. Flags:\n");
    for (const auto& [flag, value] : numbers) fmt::print("  {} N  (default {})\n", flag, *value);
    for (const auto& [flag, value] : words) {
      fmt::print("  {} WORD  (default {})\n", flag, value->empty() ? "none" : *value);
    }
    for (const auto& [flag, value] : switches) fmt::print("  {}\n", flag);
    fmt::print(
        "--preset 3b|7b sets the widths that no flag gives; --attn and --compile, flags of\n"
        "baseline_qwen2_5_vl.py, change nothing here.\n");
  };
  std::set<std::string> given;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--help" || flag == "-h") {
      print_help();
      std::exit(0);
    }
    given.insert(flag);
    if (const auto it = switches.find(flag); it != switches.end()) {
      *it->second = true;
      continue;
    }
    require<UsageError>(numbers.contains(flag) || words.contains(flag), "unknown flag ", flag,
                        "; --help lists them");
    require<UsageError>(++i < argc, flag, " needs a value");
    if (const auto it = numbers.find(flag); it != numbers.end()) {
      *it->second = std::stoll(argv[i]);
    } else {
      *words.at(flag) = argv[i];
    }
  }
  apply_preset(s, given);
  require<UsageError>(s.dtype == "bf16" || s.dtype == "fp32", "--dtype is bf16 or fp32");
  require<UsageError>(s.seq > s.image_tokens() + 2, "--seq is too short for the image");
  return s;
}

qwen::Options model_options(const Settings& s) {
  qwen::Options options;
  options.vision = {.depth = s.vit_depth,
                    .hidden_size = s.vit_hidden,
                    .intermediate_size = s.vit_inter,
                    .num_heads = s.vit_heads,
                    .out_hidden_size = s.hidden};
  options.vision.fullatt_block_indexes.clear();
  for (int64_t i = 7; i < s.vit_depth; i += 8) options.vision.fullatt_block_indexes.push_back(i);
  options.text = {.vocab_size = s.vocab,
                  .hidden_size = s.hidden,
                  .intermediate_size = s.inter,
                  .num_hidden_layers = s.layers,
                  .num_attention_heads = s.heads,
                  .num_key_value_heads = s.kv_heads,
                  .rms_norm_eps = 1e-6,
                  .mrope_section = {s.head() / 8, s.head() * 3 / 16, s.head() * 3 / 16}};
  options.ids = {.image = s.vocab - 3,
                 .video = s.vocab - 2,
                 .vision_start = s.vocab - 5,
                 .vision_end = s.vocab - 4,
                 .end_of_turn = 1,
                 .end_of_text = 0};
  return options;
}

/// Samples of random ids with one picture each; half of the text behind it is trained.
struct Input {
  std::vector<std::vector<int32_t>> ids, labels;
  std::vector<at::Tensor> pixels;
  std::vector<qwen::SampleView> views;

  explicit Input(const Settings& s) {
    std::mt19937_64 engine(static_cast<uint64_t>(s.seed));
    std::uniform_int_distribution<int32_t> any(2, static_cast<int32_t>(s.vocab) - 9);
    const int64_t picture = s.image_tokens(), text = s.seq - picture - 2;
    const int64_t prompt = 10 + picture + (text - 8) / 2;
    for (int64_t b = 0; b < s.batch; ++b) {
      auto& sample = ids.emplace_back(static_cast<size_t>(s.seq));
      std::ranges::generate(sample, [&] { return any(engine); });
      sample[8] = static_cast<int32_t>(s.vocab - 5);
      std::fill_n(sample.begin() + 9, picture, static_cast<int32_t>(s.vocab - 3));
      sample[static_cast<size_t>(9 + picture)] = static_cast<int32_t>(s.vocab - 4);
      auto& label = labels.emplace_back(sample);
      std::fill_n(label.begin(), prompt, -100);
      pixels.push_back(at::randn({s.patches(), 1176}));
    }
    for (size_t b = 0; b < ids.size(); ++b) {
      const std::span rows(pixels[b].const_data_ptr<float>(),
                           static_cast<size_t>(pixels[b].numel()));
      views.push_back({.index = b,
                       .tokens = ids[b],
                       .labels = labels[b],
                       .media = {{.grid = {.t = 1, .h = s.grid(), .w = s.grid()}, .rows = rows}},
                       .loss_weight = 1.0 / static_cast<double>(s.batch * (s.seq - prompt))});
    }
  }
};

double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double copy_gbps(at::Device device) {
  const auto from = at::ones({64 << 20}, at::dtype(at::kFloat).device(device));
  auto to = at::empty_like(from);
  double best = 1e30;
  for (int i = 0; i < 5; ++i) {
    synchronize(device);
    const double start = steady_seconds();
    to.copy_(from);
    synchronize(device);
    best = std::min(best, steady_seconds() - start);
  }
  return 2 * static_cast<double>(from.nbytes()) / best / 1e9;
}

struct Row {
  double forward, backward, optimizer, step, cpu;
};

double minimum(const std::vector<Row>& rows, double Row::* column) {
  return std::ranges::min(rows, {}, column).*column;
}
double median(std::vector<Row> rows, double Row::* column) {
  std::ranges::sort(rows, {}, column);
  const size_t half = rows.size() / 2;
  return rows.size() % 2 == 1 ? rows[half].*column
                              : (rows[half - 1].*column + rows[half].*column) / 2;
}
double rounded(double value, int digits) {
  const double unit = std::pow(10, digits);
  return std::round(value * unit) / unit;
}

/// Flop of one step, with the reference script's formula (multiply and add counted as two, causal
/// attention at half, the head on every row).
struct Flop {
  double vision = 0, head = 0, step = 0;

  explicit Flop(const Settings& s) {
    const auto d = [](int64_t n) { return static_cast<double>(n); };
    const double S = d(s.seq), H = d(s.hidden), KV = d(s.kv_heads * s.head()), B = d(s.batch);
    const double E = d(s.vit_hidden), P = d(s.patches()), full = d(s.vit_depth / 8);
    const double token =
        d(s.layers) * 2 * (H * (H + 2 * KV) + H * H + 3 * H * d(s.inter)) + 2 * H * d(s.vocab);
    const double attention = d(s.layers) * 2 * S * S * H;
    const double patch = d(s.vit_depth) * 2 * (4 * E * E + 3 * E * d(s.vit_inter)) + 2 * 1176 * E;
    const double segments = 4 * E * (full * P * P + (d(s.vit_depth) - full) * P * 64);
    const double merger = d(s.image_tokens()) * 2 * (16 * E * E + 4 * E * H);
    vision = B * (P * patch + segments + merger);
    head = B * 6 * S * H * d(s.vocab);
    step = B * 3 * (S * token + attention) + (s.train_vit ? 3 : 1) * vision;
  }
};

/// Time by operator name without that of the operators it calls, over one step.
class OperatorTable {
 public:
  OperatorTable() {
    current = this;
    handle_ = at::addGlobalCallback(
        at::RecordFunctionCallback(&OperatorTable::begin, &OperatorTable::end)
            .scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION,
                     at::RecordScope::USER_SCOPE}));
  }
  ~OperatorTable() {
    at::removeCallback(handle_);
    current = nullptr;
  }
  OperatorTable(const OperatorTable&) = delete;
  OperatorTable& operator=(const OperatorTable&) = delete;

  void print(int64_t rows) const {
    std::vector<std::pair<std::string, Entry>> sorted(entries_.begin(), entries_.end());
    std::ranges::sort(
        sorted, [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
    fmt::print(stderr, "{:>10} {:>7}  {}\n", "self ms", "calls", "operator");
    for (const auto& [name, entry] : sorted) {
      if (rows-- == 0) break;
      fmt::print(stderr, "{:10.1f} {:7}  {}\n", entry.seconds * 1e3, entry.calls, name);
    }
  }

 private:
  struct Entry {
    double seconds = 0;
    int64_t calls = 0;
  };
  struct Open : at::ObserverContext {
    double start = steady_seconds(), inner = 0;
    Open* outer = nullptr;
  };
  static std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction&) {
    auto open = std::make_unique<Open>();
    open->outer = top;
    top = open.get();
    return open;
  }
  static void end(const at::RecordFunction& function, at::ObserverContext* context) {
    auto* open = static_cast<Open*>(context);
    const double whole = steady_seconds() - open->start;
    top = open->outer;
    if (top != nullptr) top->inner += whole;
    if (current == nullptr) return;
    auto& entry = current->entries_[function.name()];
    entry.seconds += whole - open->inner;
    ++entry.calls;
  }

  static inline OperatorTable* current = nullptr;
  static inline thread_local Open* top = nullptr;
  std::map<std::string, Entry> entries_;
  at::CallbackHandle handle_ = 0;
};

/// The model, its optimizer and the input.
class Step {
 public:
  explicit Step(const Settings& s)
      : settings_(s), device_(s.device), options_(model_options(s)), input_(s) {
    model_ = qwen::build(options_, s.type());
    initialise(model_.parameters, static_cast<uint64_t>(s.seed), device_);
    for (const auto& parameter : model_.parameters) {
      parameter->trained = s.train_vit || !parameter->name.starts_with("visual.");
      parameter->value.set_requires_grad(parameter->trained);
    }
    if (s.optimizer != "none") {
      optimizer_ = std::make_unique<ShardedOptimizer>(
          model_.parameters, AdamWSettings{.weight_decay = 0.01, .decay_all = true},
          ShardingSettings{}, OptimizerGroups{.gradients = &alone_, .norm = &alone_});
    }
    if (s.checkpointing) {
      const auto family = make_family(qwen::make_config(options_), "the benchmark", "", "max_hw");
      plan_ = RecomputePlan::full(*family, model_, -1);
    }
  }

  Row run() {
    synchronize(device_);
    const double cpu = cpu_seconds(), t0 = steady_seconds();
    if (optimizer_) optimizer_->begin_step(1);
    at::Tensor loss;
    {
      auto flow =
          qwen::make_flow(options_, input_.views, {.device = device_, .dtype = settings_.type()});
      run_layers(model_, flow, plan_);
      loss = flow.at(qwen::field::kLoss);
    }
    synchronize(device_);
    const double t1 = steady_seconds();
    loss.backward();
    if (optimizer_) optimizer_->finish_micro_batch();
    synchronize(device_);
    const double t2 = steady_seconds();
    if (optimizer_) {
      optimizer_->step({.learning_rate = 1e-5});
    } else {
      for (const auto& parameter : model_.parameters) parameter->value.mutable_grad().reset();
    }
    synchronize(device_);
    const double t3 = steady_seconds();
    loss_ = loss.item<double>();
    return {(t1 - t0) * 1e3, (t2 - t1) * 1e3, (t3 - t2) * 1e3, (t3 - t0) * 1e3,
            cpu_seconds() - cpu};
  }

  double loss() const { return loss_; }
  at::Device device() const { return device_; }
  int64_t parameters() const {
    int64_t count = 0;
    for (const auto& parameter : model_.parameters) count += parameter->value.numel();
    return count;
  }
  int64_t trained() const { return optimizer_ ? optimizer_->trained_elements() : 0; }

 private:
  Settings settings_;
  at::Device device_;
  qwen::Options options_;
  Input input_;
  Model model_;
  Group alone_;
  std::unique_ptr<ShardedOptimizer> optimizer_;
  RecomputePlan plan_;
  double loss_ = 0;
};

Json shape_of(const Settings& s) {
  return {{"hidden", s.hidden},
          {"layers", s.layers},
          {"heads", s.heads},
          {"kv_heads", s.kv_heads},
          {"inter", s.inter},
          {"vocab", s.vocab},
          {"vit_depth", s.vit_depth},
          {"vit_hidden", s.vit_hidden},
          {"image", s.image},
          {"patches", s.patches()},
          {"image_tokens", s.image_tokens()},
          {"seq", s.seq},
          {"train_vit", s.train_vit},
          {"checkpointing", s.checkpointing}};
}

Json measure(const Settings& s) {
  Step step(s);
  std::vector<Row> rows;
  double first = 0;
  for (int64_t i = 0; i < s.warmup + s.steps; ++i) {
    const auto row = step.run();
    if (i == 0) first = row.step / 1e3;
    if (i >= s.warmup) rows.push_back(row);
  }
  const double loss = step.loss();
  if (s.profile > 0) {
    const OperatorTable table;
    step.run();
    table.print(s.profile);
  }
  // Before the measurements of the machine below, which take memory of their own.
  const double peak_mib = static_cast<double>(peak_resident_bytes()) / (1 << 20);
  const double device_mib = static_cast<double>(peak_memory_bytes(step.device())) / (1 << 20);

  const Flop flop(s);
  const double seconds = minimum(rows, &Row::step) / 1e3;
  const double peak = measure_matrix_peak(step.device(), s.type()) / 1e9;
  double load = 0;
  getloadavg(&load, 1);
  Json line{{"bench", "qwen2_5_vl"},
            {"mode", "triptych"},
            {"dtype", s.dtype},
            {"batch", s.batch},
            {"threads", s.threads},
            {"device", s.device},
            {"torch", TORCH_VERSION},
            {"shape", shape_of(s)},
            {"samples_per_s", rounded(static_cast<double>(s.batch) / seconds, 4)},
            {"tokens_per_s", rounded(static_cast<double>(s.batch * s.seq) / seconds, 1)}};
  const std::pair<const char*, double Row::*> phases[] = {{"forward", &Row::forward},
                                                          {"backward", &Row::backward},
                                                          {"optimizer", &Row::optimizer},
                                                          {"step", &Row::step}};
  for (const auto& [name, column] : phases) {
    line[std::string(name) + "_ms_min"] = rounded(minimum(rows, column), 1);
    line[std::string(name) + "_ms_median"] = rounded(median(rows, column), 1);
  }
  const double both = minimum(rows, &Row::forward) + minimum(rows, &Row::backward);
  const double gflops = flop.step / seconds / 1e9;
  line.update(
      {{"first_step_s", rounded(first, 2)},
       {"step_cpu_s_per_thread_min",
        rounded(minimum(rows, &Row::cpu) / static_cast<double>(s.threads), 3)},
       {"loss", rounded(loss, 4)},
       {"model_gflop_per_step", rounded(flop.step / 1e9, 1)},
       {"achieved_gflops", rounded(gflops, 1)},
       {"achieved_gflops_fwd_bwd", rounded(flop.step / 1e6 / both, 1)},
       {"gemm_peak_gflops", rounded(peak, 1)},
       {"gemm_peak_fp32_gflops", rounded(measure_matrix_peak(step.device(), at::kFloat) / 1e9, 1)},
       {"copy_gbps", rounded(copy_gbps(step.device()), 1)},
       {"peak_rss_mib", std::lround(peak_mib)},
       {"load_1m", rounded(load, 2)},
       {"trained_params", step.trained()},
       {"note", s.note},
       {"mfu", rounded(gflops / peak, 4)}});
  if (!step.device().is_cpu()) line["peak_device_mib"] = std::lround(device_mib);
  line.update({{"params", step.parameters()},
               {"vision_gflop", rounded(flop.vision / 1e9, 1)},
               {"head_gflop", rounded(flop.head / 1e9, 1)}});
  return line;
}

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  try {
    triptych::install_cpu_allocator();
    const auto settings = triptych::parse(argc, argv);
    at::set_num_threads(static_cast<int>(settings.threads));
    fmt::print("{}\n", triptych::dump_json(triptych::measure(settings)));
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
}
