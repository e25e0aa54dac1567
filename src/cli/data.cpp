#include <algorithm>
#include <exception>
#include <map>
#include <thread>

#include "base/error.h"
#include "base/format.h"
#include "base/json.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/terminal.h"
#include "base/utf8.h"
#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "data/pipeline.h"
#include "data/worker_pool.h"
#include "train/check_run.h"
#include "train/run_options.h"

extern char** environ;

namespace triptych {
namespace {

namespace fs = std::filesystem;

/// The records to look at and, where a model is named, how it would see them.
struct Subject {
  std::unique_ptr<Dataset> dataset;
  std::unique_ptr<QwenProcessor> processor;  ///< null: without a model
  int64_t max_length = 0;
};

DataOptions file_options(const Arguments& arguments, const fs::path& file) {
  DataOptions options;
  const auto format = arguments.text("--format", "auto");
  const auto names = option_names(SourceFormat{});
  const auto known = std::ranges::find(names, format);
  require<UsageError>(known != names.end(), "--format ", format,
                      " is not known; allowed: auto, llava, sharegpt, messages");
  options.train.push_back({.path = file,
                           .format = static_cast<SourceFormat>(known - names.begin()),
                           .media = arguments.text("--media")});
  return options;
}

/// A record file, or a run file, whose training and validation sources are then looked at as the
/// run would read them.
Subject open_subject(const Arguments& arguments, const fs::path& file) {
  require_file(file, "file");
  if (arguments.has("--model")) require_folder(arguments.text("--model"), "model folder");
  if (arguments.has("--media")) require_folder(arguments.text("--media"), "folder of media");
  DataOptions options;
  fs::path model = arguments.text("--model");
  if (file.extension() == ".toml") {
    auto run = read_run_options(
        {.file = file, .environment = environ, .assignments = arguments.all("--set")});
    check_inputs(run.options);
    options = std::move(run.options.data);
    options.train.insert(options.train.end(), options.validation.begin(), options.validation.end());
    if (model.empty()) model = run.options.model.path;
  } else {
    options = file_options(arguments, file);
  }
  options.chat_template = arguments.text("--template", options.chat_template);
  options.max_length = arguments.integer("--max-length", options.max_length, 1);
  Subject subject{.dataset = std::make_unique<Dataset>(open_dataset(options.train, {})),
                  .processor = nullptr,
                  .max_length = options.max_length};
  if (!model.empty()) subject.processor = make_processor(options, model);
  return subject;
}

std::vector<RecordRef> all_records(const Dataset& dataset) {
  std::vector<RecordRef> refs;
  refs.reserve(static_cast<size_t>(dataset.size()));
  for (int32_t source = 0; source < dataset.num_sources(); ++source) {
    for (int64_t record = 0; record < dataset.size(source); ++record)
      refs.push_back({source, record});
  }
  return refs;
}

/// What one record turned out to be.
struct Finding {
  int32_t tokens = 0, labels = 0, images = 0, videos = 0;
  std::string problem;        ///< empty: a good record
  std::exception_ptr broken;  ///< not the record's fault
};

struct CheckSettings {
  bool decode = false;
  int64_t workers = 1;
};

Finding inspect(const Subject& subject, RecordRef ref, bool decode) {
  Finding found;
  try {
    const auto conversation = subject.dataset->conversation(ref);
    for (const auto* part : conversation.media())
      ++(part->kind == PartKind::kImage ? found.images : found.videos);
    if (!subject.processor) return found;
    const auto size = subject.processor->measure(conversation);
    found.tokens = size.tokens;
    found.labels = size.labels;
    // The loader refuses the same.
    require<DataError>(size.tokens <= subject.max_length, conversation.origin, ": ", size.tokens,
                       " tokens are more than data.max_length = ", subject.max_length,
                       "; raise it, or make pictures smaller (data.image_max_pixels)");
    require<DataError>(size.labels > 0, conversation.origin, ": no token carries a label");
    if (decode) subject.processor->make(conversation);
  } catch (const DataError& error) {
    found.problem = escape_controls(escape_bad_utf8(error.what()), true);  // paths may be any bytes
  } catch (...) {
    found.broken = std::current_exception();
  }
  return found;
}

std::vector<Finding> inspect_all(const Subject& subject, const CheckSettings& settings) {
  const auto refs = all_records(*subject.dataset);
  std::vector<Finding> findings(refs.size());
  WorkerPool pool(settings.workers);
  constexpr size_t kPart = 4096;  // between two updates of the progress line
  for (size_t begin = 0; begin < refs.size(); begin += kPart) {
    const size_t count = std::min(kPart, refs.size() - begin);
    pool.for_each(static_cast<int64_t>(count), [&](int64_t i) {
      const size_t record = begin + static_cast<size_t>(i);
      findings[record] = inspect(subject, refs[record], settings.decode);
    });
    for (size_t i = begin; i < begin + count; ++i) {
      if (findings[i].broken) std::rethrow_exception(findings[i].broken);
    }
    if (is_terminal(Stream::kStderr))
      set_live_line(fmt::format("{} of {} records", begin + count, refs.size()));
  }
  set_live_line("");
  return findings;
}

struct Bin {
  int64_t least = 0, most = 0, count = 0;
};

/// Lengths in at most `most_bins` bins whose width is 1, 2 or 5 times a power of ten.
std::vector<Bin> histogram(const std::vector<int64_t>& lengths, int64_t most_bins) {
  if (lengths.empty()) return {};
  const auto [low, high] = std::ranges::minmax(lengths);
  int64_t width = 1;
  for (int64_t step = 0; high / width - low / width >= most_bins; ++step)
    width = step % 3 == 1 ? width / 2 * 5 : width * 2;
  std::vector<Bin> bins;
  for (int64_t least = low / width * width; least <= high; least += width)
    bins.push_back({least, least + width - 1, 0});
  for (const auto length : lengths) ++bins[static_cast<size_t>(length / width - low / width)].count;
  return bins;
}

struct Summary {
  std::vector<std::string> problems;
  std::vector<int64_t> lengths;  ///< of good records, ascending
  int64_t records = 0, tokens = 0, labels = 0, images = 0, videos = 0;

  int64_t good() const { return records - static_cast<int64_t>(problems.size()); }
  int64_t percentile(int64_t percent) const {
    return lengths[(lengths.size() - 1) * static_cast<size_t>(percent) / 100];
  }
  double label_share() const {
    return tokens == 0 ? 0 : static_cast<double>(labels) / static_cast<double>(tokens);
  }
};

Summary summarise(const std::vector<Finding>& findings) {
  Summary summary{.records = static_cast<int64_t>(findings.size())};
  for (const auto& found : findings) {
    if (!found.problem.empty()) {
      summary.problems.push_back(found.problem);
      continue;
    }
    summary.lengths.push_back(found.tokens);
    summary.tokens += found.tokens;
    summary.labels += found.labels;
    summary.images += found.images;
    summary.videos += found.videos;
  }
  std::ranges::sort(summary.lengths);
  return summary;
}

constexpr int64_t kMostBins = 16;

Json to_json(const Summary& summary, bool measured) {
  Json json{{"records", summary.records},     {"good", summary.good()},
            {"bad", summary.problems.size()}, {"problems", summary.problems},
            {"images", summary.images},       {"videos", summary.videos}};
  if (!measured) return json;
  json["tokens"] = summary.tokens;
  json["label_tokens"] = summary.labels;
  json["label_share"] = summary.label_share();
  json["lengths"] = Json::array();
  for (const auto& bin : histogram(summary.lengths, kMostBins))
    json["lengths"].push_back({{"least", bin.least}, {"most", bin.most}, {"count", bin.count}});
  return json;
}

std::string to_text(const Summary& summary, bool measured) {
  std::string text;
  for (const auto& problem : summary.problems) text += problem + "\n";
  text += fmt::format("{}: {} good, {} bad; {}, {}\n", counted(summary.records, "record"),
                      summary.good(), summary.problems.size(), counted(summary.images, "picture"),
                      counted(summary.videos, "video"));
  if (!measured)
    return text + "token counts need a model's tokenizer: --model FOLDER, or a run file\n";
  if (summary.lengths.empty()) return text;
  text += fmt::format(
      "{} tokens, {} with a label ({:.1f} %)\nlength: shortest {}, median {}, 95 % up to {}, "
      "longest {}\n",
      summary.tokens, summary.labels, 100 * summary.label_share(), summary.lengths.front(),
      summary.percentile(50), summary.percentile(95), summary.lengths.back());
  const auto bins = histogram(summary.lengths, kMostBins);
  const auto fullest = std::ranges::max(bins, {}, &Bin::count).count;
  for (const auto& bin : bins) {
    std::string bar;
    for (int64_t i = 0; i < (bin.count * 40 + fullest - 1) / fullest; ++i) bar += "█";
    text += fmt::format("{:>7} to {:<7} {:>8}  {}\n", bin.least, bin.most, bin.count, bar);
  }
  return text;
}

int run_check(const Arguments& arguments, const fs::path& file) {
  const auto subject = open_subject(arguments, file);
  const auto cores = static_cast<int64_t>(std::max(1U, std::thread::hardware_concurrency()));
  const auto summary =
      summarise(inspect_all(subject, {.decode = arguments.has("--decode"),
                                      .workers = arguments.integer("--workers", cores, 1)}));
  const bool measured = subject.processor != nullptr;
  const auto text = arguments.has("--json") ? dump_json(to_json(summary, measured), 2) + "\n"
                                            : to_text(summary, measured);
  print_output(text);
  return summary.problems.empty() ? 0 : 1;
}

/// Tokens as text, runs of one placeholder told by their number; tokens with a label stand out:
/// green on a terminal, between ⟦ and ⟧ elsewhere.
std::string marked_text(const Tokenizer& tokenizer, const Sample& sample) {
  const bool coloured = uses_color(Stream::kStdout);
  std::string text;
  const auto& tokens = sample.tokens;
  for (size_t begin = 0, end = 0; begin < tokens.size(); begin = end) {
    const bool label = sample.labels[begin] != kIgnoreLabel;
    std::string stretch;
    while (end < tokens.size() && (sample.labels[end] != kIgnoreLabel) == label) {
      size_t same = end;
      while (same < tokens.size() && tokens[same] == tokens[end] &&
             (sample.labels[same] != kIgnoreLabel) == label)
        ++same;
      // Byte by byte, so that what is cut inside a character shows as such at its place only.
      constexpr size_t kRun = 4;
      const size_t shown = same - end < kRun ? same - end : 1;
      stretch += escape_controls(tokenizer.decode(std::span(tokens).subspan(end, shown)));
      if (same - end >= kRun) stretch += fmt::format("×{} ", same - end);
      end = same;
    }
    if (!label) {
      text += stretch;
    } else {
      text += coloured ? styled(Stream::kStdout, Style::kGreen, stretch) : "⟦" + stretch + "⟧";
    }
  }
  return text;
}

std::string preview_text(const Subject& subject, RecordRef ref) {
  const auto conversation = subject.dataset->conversation(ref);
  const auto sample = subject.processor->make(conversation);
  const auto labels =
      std::ranges::count_if(sample.labels, [](int32_t label) { return label != kIgnoreLabel; });
  std::string text = fmt::format("── {}: {} tokens, {} with a label\n", conversation.origin,
                                 sample.tokens.size(), labels);
  for (const auto& medium : sample.media) {
    const auto& grid = medium.grid;
    text += medium.kind == MediaKind::kImage
                ? fmt::format("   picture: {} x {} pixels, {} x {} patches, {} tokens\n",
                              grid.w * 14, grid.h * 14, grid.w, grid.h, grid.patches() / 4)
                : fmt::format("   video: {} steps of {} x {} pixels, {:.3g} s each, {} tokens\n",
                              grid.t, grid.w * 14, grid.h * 14, medium.seconds_per_grid,
                              grid.patches() / 4);
  }
  return text + marked_text(subject.processor->tokenizer(), sample) + "\n";
}

int run_preview(const Arguments& arguments, const fs::path& file) {
  const auto subject = open_subject(arguments, file);
  require<UsageError>(subject.processor != nullptr,
                      "data preview: which model? --model FOLDER, or give a run file");
  const auto refs = all_records(*subject.dataset);
  const int64_t first = arguments.integer("--record", 1, 1);
  const auto size = static_cast<int64_t>(refs.size());
  require<UsageError>(first <= size, "--record ", first, ": there are ", size, " records");
  const int64_t last = std::min(size, first - 1 + arguments.integer("--limit", 3, 1));
  for (int64_t i = first - 1; i < last; ++i) {
    const auto text = preview_text(subject, refs[static_cast<size_t>(i)]);
    print_output(text);
  }
  return 0;
}

int run_data(const Arguments& arguments) {
  arguments.expect(std::vector<std::string>{"check|preview", "FILE"});
  const auto& verb = arguments.positional()[0];
  const fs::path file = arguments.positional()[1];
  if (verb == "check") return run_check(arguments, file);
  require<UsageError>(verb == "preview", "data ", verb, ": no such command; check or preview");
  return run_preview(arguments, file);
}

}  // namespace

Command data_command() {
  Command command;
  command.name = "data";
  command.summary = "Check data files before training, or see what the model will see.";
  command.usage = "check|preview FILE|RUN.toml [--model FOLDER]";
  command.flags = {
      {"--model", "FOLDER", "hub folder with tokenizer and processor; default: the run file's"},
      {"--media", "DIR", "folder of the media; default: the data file's own"},
      {"--format",
       "NAME",
       "how the records are written (default auto)",
       false,
       {"auto", "llava", "sharegpt", "messages"}},
      {"--template", "NAME", "chat template, as data.template; default: the run file's, or auto"},
      {"--max-length", "N", "longest sample in tokens; default: the run file's, or 4096"},
      {"--set", "KEY=VALUE", "override an option of the run file", true},
      {"--decode", "", "check: decode every picture and video, too, not only their headers"},
      {"--workers", "N", "check: threads; default: all cores"},
      {"--json", "", "check: for programs"},
      {"--record", "N", "preview: the first record to show, from 1 (default 1)"},
      {"--limit", "N", "preview: how many records (default 3)"},
  };
  command.details =
      "check reports every bad record with its line, the pictures and videos, the histogram of "
      "lengths in tokens, and the share of tokens that carry a label. preview prints the tokens as "
      "text with the labels marked, and the grid of each picture. With a run file, all its sources "
      "are read as the run would read them.";
  command.example =
      "triptych data check runs/quickstart/data/train.jsonl --model runs/quickstart/model";
  command.status = "0 done, 1 failed or bad records found, 2 wrong options (nothing was started).";
  command.run = run_data;
  return command;
}

}  // namespace triptych
