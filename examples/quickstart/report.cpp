// What the quickstart ends with: the loss over the run, some answers before and after, and how many
// held-out questions were answered exactly.
//
//   quickstart_report RUN BEFORE.json AFTER.json      (the last two of `triptych evaluate --json`)

#include <cstdio>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/format.h"
#include "base/json.h"
#include "loss_plot.h"

namespace quickstart {
namespace {

namespace fs = std::filesystem;
using triptych::Json;

struct Losses {
  std::vector<LossPoint> training, validation;
};

Losses read_losses(const fs::path& metrics) {
  Losses losses;
  const auto text = triptych::read_file(metrics);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    const auto row =
        triptych::parse_json(std::string_view(text).substr(begin, end - begin), metrics.string());
    begin = end == std::string::npos ? text.size() : end + 1;
    const double step = row.at("step").get<double>();
    if (row.contains("loss") && row["loss"].is_number())
      losses.training.push_back({step, row["loss"].get<double>()});
    if (row.contains("validation_loss"))
      losses.validation.push_back({step, row["validation_loss"].get<double>()});
  }
  return losses;
}

/// "held_out.jsonl:7" -> the question of record 7.
std::string question_of(const fs::path& run, const std::string& origin) {
  const auto line = std::stoul(origin.substr(origin.rfind(':') + 1));
  const auto text = triptych::read_file(run / "data" / "held_out.jsonl");
  size_t begin = 0;
  for (size_t i = 1; i < line; ++i) begin = text.find('\n', begin) + 1;
  const auto record = triptych::parse_json(
      std::string_view(text).substr(begin, text.find('\n', begin) - begin), origin);
  const auto& turns = record.at("conversations");
  const auto asked = turns.at(turns.size() - 2).at("value").get<std::string>();
  return record.at("image").get<std::string>() + "  " + asked.substr(asked.find('\n') + 1);
}

/// What does not print as it is, such as the bytes an untrained model makes, as dots.
std::string printable(const std::string& text) {
  std::string shown;
  for (const unsigned char byte : text) {
    if (shown.size() == 24) return shown + "...";
    shown += byte >= 0x20 && byte < 0x7f ? static_cast<char>(byte) : '.';
  }
  return shown;
}

void run(const fs::path& run, const fs::path& before_file, const fs::path& after_file) {
  const auto losses = read_losses(run / "metrics.jsonl");
  triptych::write_file_atomically(run / "loss.svg", plot_svg(losses.training, losses.validation));
  fmt::print("\n{}\n", plot_text(losses.training, losses.validation));

  const auto before = triptych::read_json(before_file), after = triptych::read_json(after_file);
  fmt::print("{:<58} {:<28} {:<24} {}\n", "held-out picture and question", "before", "after",
             "right answer");
  std::map<std::string, int> shown;
  for (size_t i = 0; i < before.at("answers").size(); ++i) {
    const auto& answer = after.at("answers").at(i);
    const auto question = question_of(run, answer.at("record"));
    if (++shown[question.substr(question.rfind("  "))] > 1) continue;
    if (shown.size() > 8) break;
    fmt::print("{:<58} {:<28} {:<24} {}\n", question,
               printable(before.at("answers").at(i).at("answer")), printable(answer.at("answer")),
               answer.at("expected").get<std::string>());
  }
  const auto exact = after.at("exact").get<int64_t>(), samples = after.at("samples").get<int64_t>();
  fmt::print("\nmodel: {}   loss plot: {}\n", (run / "final").string(),
             (run / "loss.svg").string());
  fmt::print("held-out answers exactly right: {}/{} ({:.1f} %)\n", exact, samples,
             100.0 * static_cast<double>(exact) / static_cast<double>(samples));
}

}  // namespace
}  // namespace quickstart

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("usage: quickstart_report RUN BEFORE.json AFTER.json\n", stderr);
    return 2;
  }
  try {
    quickstart::run(argv[1], argv[2], argv[3]);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
}
