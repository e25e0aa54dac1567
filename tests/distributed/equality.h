#pragma once

// Whether a parallel layout trains what one process trains: a tiny model, the same global batches,
// losses of five optimizer steps and every gradient of the first.

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"

namespace triptych {

/// Qwen2.5-VL (tiny_qwen.h), and a video diffusion transformer that only the tests have
/// (tiny_video.h).
enum class TinyModel { kQwen, kVideo };

struct EqualityRow {
  std::string name;
  int processes = 1;
  /// Assignments to options of the run file, as `--set` takes them, and to the tiny model:
  /// "tiny.tied=true", "tiny.key_value_heads=1". Those of [parallel] and [recompute] are left out
  /// in the run of one process that the row is compared with.
  std::vector<std::string> set;
  /// More than 1e-5 (fp32), with the reason in a comment beside the row.
  double tolerance = 1e-5;
  /// A mistake to make on purpose, which the comparison must find; empty: none.
  ///   "no sums"         gradients of what all tensor ranks hold are not summed over them
  ///   "no copies' sums" those of key/value heads that several ranks hold are not
  ///   "counted twice"   every rank counts and saves what others hold as well
  ///   "no sums of tied weights", "counted by each stage"  of weights that two stages use
  std::string mistake = {};
  TinyModel model = TinyModel::kQwen;
};

struct TrainedTiny {
  std::vector<double> losses, norms;            ///< of the steps
  std::map<std::string, at::Tensor> gradients;  ///< of the first step, whole, by hub name, fp64
};

/// Runs a row's layout. @throws std::runtime_error with the ranks' output when one fails, when
/// ranks that hold the same elements have other gradients, or when elements are held by none.
TrainedTiny train_row(const EqualityRow& row, bool bf16);
/// The run of one process that `row` is compared with; computed once per setting.
const TrainedTiny& train_alone(const EqualityRow& row, bool bf16);

/// Relative errors, over the steps that `got` has: of the loss, the largest over the steps; of the
/// gradient norm likewise; of gradients ||a - b|| / ||b||, the largest over the parameters, and
/// over all of them as one vector.
struct Deviation {
  double loss = 0, norm = 0, gradient = 0, all_gradients = 0;
  std::string worst;  ///< the parameter of `gradient`
};
Deviation compare(const TrainedTiny& got, const TrainedTiny& want);

/// What each rank runs; register it as the scenario "equality" before run_main.
int equality_rank(const Json& config);

}  // namespace triptych
