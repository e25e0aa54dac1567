#pragma once

// One rank's part of a model that a pipeline runs: where the model is cut, what of it this rank
// holds, and what a training step needs to run it.

#include <memory>
#include <vector>

#include "parallel/pipeline.h"
#include "parallel/process_context.h"
#include "parallel/sharded_optimizer.h"
#include "parallel/stage_cut.h"
#include "train/loaded_model.h"
#include "train/run_options.h"

namespace triptych {

/// The pipeline of a run. @param data_ranks  that share the global batch
PipelineShape pipeline_shape(const RunOptions& options, int64_t data_ranks);

/// Cuts a model as `parallel.vision_layers` and so on say; "auto" weighs layers by the flop of a
/// step over a sequence of `data.max_length`. Adds what is wrong to `problems`: rules M11 to M14
/// and M16 of docs/spec/parallelism.md.
StageCut cut_model(const Family& family, const Model& model, const RunOptions& options,
                   const PipelineShape& shape, Problems& problems);

/// Takes over the cut: only parameters of the layers of pipeline rank `rank` are held here.
/// To be called while all are on meta.
void place_on_stage(LoadedModel& loaded, const StageCut& cut, int64_t rank);

/// Loads this rank's part of a run's model. The mesh must be set.
/// On the meta device no weights are read; each parameter of this rank has its size.
/// @throws as load_model; UsageError for a model that cannot be cut so
LoadedModel load_part(ProcessContext& process, const RunOptions& options, at::Device device);
/// The same for a family that is known already.
LoadedModel load_part(ProcessContext& process, const RunOptions& options, at::Device device,
                      std::unique_ptr<Family> family);

/// The groups of its optimizer.
OptimizerGroups optimizer_groups(ProcessContext& process, const RunOptions& options,
                                 const LoadedModel& loaded);

/// Trained parameters that layers of several pipeline ranks use, this one among them.
std::vector<OptimizerGroups::Shared> shared_parameters(ProcessContext& process,
                                                       const LoadedModel& loaded);

/// The parameters of each chunk of pipeline rank `rank`.
std::vector<ParameterList> chunk_parameters(const LoadedModel& loaded, int64_t rank);

/// What a training step needs to run this rank's part.
class Stage {
 public:
  /// Null with one stage. @param forecast  only in a plan, see PipelineMessages.
  static std::unique_ptr<Stage> make(ProcessContext& process, const RunOptions& options,
                                     const LoadedModel& loaded, at::Device device,
                                     Forecast forecast = {});

  Pipeline& pipeline() { return pipeline_; }
  /// Ranks over which the losses of the last stages add up to that of the step.
  Group& losses() { return losses_; }
  LayerRange range(int64_t chunk) const { return ranges_[static_cast<size_t>(chunk)]; }
  bool reads_pixels() const { return reads_pixels_; }
  bool reads_vision() const { return reads_vision_; }

 private:
  Stage(PipelineSettings settings, const PipelineGroups& groups, Group& losses,
        const LoadedModel& loaded);

  Pipeline pipeline_;
  Group& losses_;
  std::vector<LayerRange> ranges_;
  bool reads_pixels_ = false, reads_vision_ = false;
};

/// One line for people: which layers are where, and the bubble to expect.
std::string describe_stages(const LoadedModel& loaded, const PipelineShape& shape);

}  // namespace triptych
