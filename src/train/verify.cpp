#include "train/verify.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/format.h"

namespace triptych {

namespace {

const char* measure_name(Measure measure) {
  switch (measure) {
    case Measure::kExact:
      return "exact";
    case Measure::kAbsolute:
      return "absolute";
    case Measure::kRelative:
      return "relative";
    case Measure::kOfLargest:
      return "of largest";
    case Measure::kRelativeL2:
      return "relative L2";
  }
  return "";
}

constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

double difference(const at::Tensor& got, const at::Tensor& expected, Measure measure) {
  if (expected.numel() == 0) return 0;
  if (measure == Measure::kExact)
    return static_cast<double>(got.ne(expected).sum().item<int64_t>());
  const auto g = got.to(at::kCPU, at::kDouble), e = expected.to(at::kCPU, at::kDouble);
  switch (measure) {
    case Measure::kAbsolute:
      return (g - e).abs().max().item<double>();
    case Measure::kRelative:
      return ((g - e).abs() / e.abs().clamp_min(1e-30)).max().item<double>();
    case Measure::kOfLargest:
      return (g - e).abs().max().item<double>() / std::max(e.abs().max().item<double>(), 1e-30);
    default:
      return (g - e).norm().item<double>() / std::max(e.norm().item<double>(), 1e-30);
  }
}

void VerifyTable::compare(const std::string& quantity, const at::Tensor& got,
                          const at::Tensor& expected, Measure measure, double tolerance) {
  if (got.sizes() != expected.sizes()) {
    add({quantity, measure, kInfinity, tolerance,
         detail::join_parts("shape ", got.sizes(), ", expected ", expected.sizes())});
    return;
  }
  add({quantity, measure, difference(got, expected, measure), tolerance, ""});
}

void VerifyTable::compare_number(const std::string& quantity, double got, double expected,
                                 Measure measure, double tolerance) {
  const double error = measure == Measure::kAbsolute
                           ? std::abs(got - expected)
                           : std::abs(got - expected) / std::abs(expected);
  add({quantity, measure, error, tolerance, fmt::format("{:.9g}, expected {:.9g}", got, expected)});
}

void VerifyTable::compare_exactly(const std::string& quantity, const Json& got,
                                  const Json& expected) {
  const bool same = got == expected;
  const auto shorten = [](std::string text) {
    return text.size() > 60 ? text.substr(0, 57) + "..." : text;
  };
  add({quantity, Measure::kExact, same ? 0.0 : 1.0, 0,
       same ? "" : "got " + shorten(got.dump()) + ", expected " + shorten(expected.dump())});
}

bool VerifyTable::ok() const {
  return !rows_.empty() &&
         std::all_of(rows_.begin(), rows_.end(), [](const auto& row) { return row.ok(); });
}

std::string VerifyTable::text() const {
  size_t width = 8;
  for (const auto& row : rows_) width = std::max(width, row.quantity.size());
  auto text = fmt::format("{:<{}}  {:<11}  {:>10}  {:>9}  verdict\n", "quantity", width, "measure",
                          "error", "tolerance");
  for (const auto& row : rows_) {
    text += fmt::format("{:<{}}  {:<11}  {:>10.3g}  {:>9.2g}  {}{}\n", row.quantity, width,
                        measure_name(row.measure), row.error, row.tolerance,
                        row.absent ? "absent"
                        : row.ok() ? "ok"
                                   : "FAIL",
                        row.note.empty() ? "" : "  " + row.note);
  }
  const auto failed =
      std::count_if(rows_.begin(), rows_.end(), [](const auto& row) { return !row.ok(); });
  const auto absent =
      std::count_if(rows_.begin(), rows_.end(), [](const auto& row) { return row.absent; });
  text += fmt::format("{} quantities, {} beyond their tolerance",
                      rows_.size() - static_cast<size_t>(absent), failed);
  if (absent > 0) text += fmt::format("; {} not in this folder", absent);
  return text + "\n";
}

Json VerifyTable::json() const {
  Json list = Json::array();
  for (const auto& row : rows_) {
    list.push_back({{"quantity", row.quantity},
                    {"measure", measure_name(row.measure)},
                    {"error", row.error},
                    {"tolerance", row.tolerance},
                    {"ok", row.ok()},
                    {"absent", row.absent},
                    {"note", row.note}});
  }
  return list;
}

VerifyTable verify_folder(const std::filesystem::path& folder, at::Device device) {
  const auto file = folder / "manifest.json";
  require<DataError>(std::filesystem::exists(file), folder.string(),
                     ": manifest.json is missing; make the folder with a script of tests/parity");
  const auto manifest = read_json(file);
  const auto& family = json_member(manifest, "family", file.string());
  VerifyTable table;
  require<DataError>(family == "qwen2_5_vl", file.string(), ": family ", family.dump(),
                     " is not known; known: \"qwen2_5_vl\"");
  try {
    verify_qwen2_5_vl(folder, manifest, device, table);
  } catch (const Json::exception& error) {  // a value that is missing or of another kind
    fail<DataError>(file.string(), ": is not as the script writes it: ", error.what());
  } catch (const c10::Error& error) {
    fail<DataError>(folder.string(), ": a tensor is not of the shape or kind that is expected: ",
                    error.what_without_backtrace());
  }
  return table;
}

}  // namespace triptych
