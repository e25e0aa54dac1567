#include "small_model.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "base/error.h"
#include "base/files.h"
#include "base/format.h"
#include "base/memory.h"
#include "models/qwen2_5_vl/model.h"
#include "parallel/launcher.h"

namespace triptych::bench {

Json small_config(const SmallSizes& sizes) {
  constexpr int64_t kHeadDim = 64;
  auto options = qwen2_5_vl::preset("qwen2_5_vl_3b");
  options.vision.depth = 1;
  options.vision.hidden_size = options.vision.intermediate_size = 64;
  options.vision.num_heads = 2;
  options.vision.fullatt_block_indexes = {0};
  options.vision.out_hidden_size = options.text.hidden_size = sizes.hidden;
  options.text.vocab_size = sizes.vocabulary;
  options.text.intermediate_size = sizes.intermediate;
  options.text.num_hidden_layers = sizes.layers;
  options.text.num_attention_heads = sizes.hidden / kHeadDim;
  options.text.num_key_value_heads = sizes.key_value_heads;
  options.text.mrope_section = {8, 12, 12};
  const int64_t last = sizes.vocabulary - 1;
  options.ids = {
      .image = last - 3, .video = last - 2, .vision_start = last - 1, .vision_end = last};
  return qwen2_5_vl::make_config(options);
}

std::unique_ptr<Family> small_family(const SmallSizes& sizes) {
  return make_family(small_config(sizes), "config.json", "", "max_hw");
}

MicroBatch small_row(const RowShape& shape) {
  Row row;
  for (int64_t begin = 0; begin < shape.tokens; begin += shape.length) {
    Sample sample;
    for (int64_t i = begin; i < std::min(begin + shape.length, shape.tokens); ++i) {
      // below the tokens that stand for media
      sample.tokens.push_back(static_cast<int32_t>(i * 7919 % (shape.vocabulary - 4)));
      sample.labels.push_back(i % shape.label_every == 0 ? sample.tokens.back()
                                                         : static_cast<int32_t>(kIgnoreLabel));
    }
    row.samples.push_back(std::move(sample));
  }
  return {.rows = {std::move(row)}};
}

Flags read_flags(const std::vector<std::string>& words, Flags flags) {
  for (size_t i = 1; i < words.size(); i += 2) {
    std::string known;
    for (const auto& [name, value] : flags) known += " " + name;
    require<UsageError>(flags.contains(words[i]) && i + 1 < words.size(), words[i],
                        " is not known or has no value; there are", known);
    flags[words[i]] = words[i + 1];
  }
  return flags;
}

std::vector<int64_t> read_numbers(const std::string& text) {
  std::vector<int64_t> list;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) list.push_back(std::stoll(part));
  return list;
}

void print_row(const std::vector<std::string>& cells) {
  for (const auto& cell : cells) fmt::print("| {} ", cell);
  fmt::print("|\n");
  std::fflush(stdout);
}

void print_head(const std::vector<std::string>& cells, size_t words) {
  print_row(cells);
  std::vector<std::string> rule(cells.size(), "---:");
  std::fill_n(rule.begin(), words, "---");
  print_row(rule);
}

double Peak::of(std::initializer_list<MemoryKind> of_kinds) const {
  double sum = 0;
  for (const auto kind : of_kinds) sum += kinds[static_cast<size_t>(kind)];
  return sum;
}

Json to_json(const Peak& peak) {
  return {{"total", peak.total}, {"kinds", peak.kinds}, {"resident", peak.resident}};
}

Peak peak_from(const Json& json) {
  return {.total = json.at("total").get<double>(),
          .kinds = json.at("kinds").get<std::array<double, kMemoryKinds>>(),
          .resident = json.at("resident").get<double>()};
}

Peak take_peak(ProcessContext& process) {
  const auto books = memory_peak();
  reset_memory_peak();
  Peak peak{.total = static_cast<double>(books.bytes) / kMiB,
            .resident = static_cast<double>(peak_resident_bytes()) / kMiB};
  for (size_t k = 0; k < kMemoryKinds; ++k)
    peak.kinds[k] = static_cast<double>(books.by_kind[k]) / kMiB;
  Peak most;
  for (const auto& text : process.control().all_gather_strings(dump_json(to_json(peak)), "peaks")) {
    auto other = peak_from(parse_json(text, "a rank's peak"));
    const double resident = std::max(most.resident, other.resident);
    if (other.total > most.total) most = other;
    most.resident = resident;
  }
  return most;
}

Json run_ranks(const std::string& program, int64_t ranks, const std::vector<std::string>& words) {
  const auto file =
      std::filesystem::temp_directory_path() / fmt::format("triptych_memory_{}", ::getpid());
  std::vector<std::string> arguments{program, "--rank", file.string()};
  arguments.insert(arguments.end(), words.begin(), words.end());
  const int status = launch_workers({.processes = ranks, .threads = 1}, arguments);
  require(status == 0, "a rank ended with status ", status);
  auto result = read_json(file);
  std::filesystem::remove(file);
  return result;
}

int guarded_main(int argc, char** argv, int (*run)(const std::vector<std::string>& words)) {
  try {
    return run({argv, argv + argc});
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
}

}  // namespace triptych::bench
