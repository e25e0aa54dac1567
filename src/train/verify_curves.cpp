#include "train/verify_curves.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "parallel/process_context.h"
#include "train/loaded_model.h"
#include "train/train_step.h"

namespace triptych {

namespace {

constexpr double kCurve = 1e-5;
// AdamW turns the sign of a vanishing gradient into a whole step, so norms drift: the reference's
// own fp32 and fp64 runs differ by up to 8e-5 in them (2.7e-6 in the losses).
constexpr double kNorm = 2e-4;

/// At least `usual`; more where the reference's own fp32 curve parts from its fp64 one, for then
/// ours may follow either.
double tolerance(const Json& manifest, const std::string& curve, const char* key, double usual) {
  const auto& noise = manifest.at("noise");
  if (!noise.contains("curves_fp64") || !noise["curves_fp64"].contains(curve)) return usual;
  return std::max(usual, 2 * noise["curves_fp64"][curve].at(key).get<double>());
}

void run_curve(const Json& manifest, const ReferenceBatches& reference, VerifyTable& table,
               const std::string& name, const LoadedModel& loaded, const StepSettings& settings) {
  const auto& wanted = manifest.at("curves").at(name);
  const auto& adamw = manifest.at("optimizer");
  ProcessContext process;
  ShardedOptimizer optimizer(loaded.model.parameters,
                             {.beta1 = adamw.at("betas").at(0),
                              .beta2 = adamw.at("betas").at(1),
                              .eps = adamw.at("eps"),
                              .weight_decay = adamw.at("weight_decay"),
                              .decay_all = true},
                             {}, optimizer_groups(process, 1));
  TrainStep train(loaded, optimizer, process.world(), settings);
  const std::vector<MicroBatch> batches{reference.batch("b0"), reference.batch("b1")};
  std::vector<double> losses, norms;
  for (size_t step = 1; step <= wanted.at("loss").size(); ++step) {
    const auto report =
        train.run(batches, static_cast<int64_t>(step), adamw.at("lr").get<double>());
    losses.push_back(report.loss);
    norms.push_back(report.norm);
  }
  const auto as_tensor = [](const Json& list) {
    return at::tensor(list.get<std::vector<double>>(), at::kDouble);
  };
  const bool low = settings.dtype == at::kBFloat16;
  if (low) {
    // bf16 compute on fp32 masters follows the fp32 curve. The reference's all-bf16 curve shows
    // how far bf16 alone leads away from it on this checkpoint.
    const auto exact = as_tensor(manifest.at("curves").at("full").at("loss"));
    const double noise = difference(as_tensor(wanted.at("loss")), exact, Measure::kAbsolute);
    table.compare("curve bf16 on fp32 masters", at::tensor(losses, at::kDouble), exact,
                  Measure::kAbsolute, std::max(kLossBf16, 2 * noise));
    return;
  }
  table.compare("curve " + name, at::tensor(losses, at::kDouble), as_tensor(wanted.at("loss")),
                Measure::kRelative, tolerance(manifest, name, "loss", kCurve));
  table.compare("gradient norms " + name, at::tensor(norms, at::kDouble),
                as_tensor(wanted.at("grad_norm")), Measure::kRelative,
                tolerance(manifest, name, "grad_norm", kNorm));
}

}  // namespace

void verify_curves(const std::filesystem::path& folder, const Json& manifest, at::Device device,
                   const ReferenceBatches& reference, VerifyTable& table) {
  struct Curve {
    const char* name;
    LossAverage average = LossAverage::kMicroBatch;
    double clip_norm = 0;
    std::vector<std::string> freeze;
    at::ScalarType dtype = at::kFloat;
    bool adapter = false;
  };
  const Curve all[] = {{.name = "full"},
                       {.name = "full_per_token", .average = LossAverage::kToken},
                       {.name = "full_clip1", .clip_norm = 1.0},
                       {.name = "frozen_vit", .freeze = {"vision", "projector"}},
                       {.name = "full_bf16_params", .dtype = at::kBFloat16},
                       {.name = "lora", .adapter = true}};
  for (const auto& curve : all) {
    ModelRequest request{
        .folder = folder / "ckpt", .dtype = curve.dtype, .device = device, .freeze = curve.freeze};
    if (curve.adapter) request.adapter = folder / "lora";
    const auto loaded = load_model(request);
    run_curve(manifest, reference, table, curve.name, loaded,
              {.loss_average = curve.average,
               .clip_norm = curve.clip_norm,
               .device = device,
               .dtype = curve.dtype});
  }
}

}  // namespace triptych
