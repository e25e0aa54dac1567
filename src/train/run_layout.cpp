#include "train/run_layout.h"

#include "parallel/shard_groups.h"
#include "train/run_setup.h"
#include "train/stage.h"

namespace triptych {

namespace {

MeshShape mesh_of(const RunOptions& options, const Family& family) {
  return mesh_shape(options.parallel, family.query_heads() / options.parallel.tensor);
}

}  // namespace

void validate_layout(const RunOptions& options, const Family& family, int64_t world_size,
                     Problems& problems, int64_t ranks_per_host) {
  const auto shape = mesh_of(options, family);
  validate(shape, world_size, problems);
  const int64_t model_ranks = shape.tensor * shape.context * shape.pipeline;
  if (world_size % model_ranks == 0) {
    if (options.parallel.zero > 0) {
      validate_zero_group(options.parallel.zero_group, world_size / (shape.tensor * shape.pipeline),
                          problems);
      if (ranks_per_host > 0 && problems.messages().empty())
        validate_zero_hosts(options.parallel.zero_group, Mesh(world_size, shape), ranks_per_host,
                            problems);
    }
    validate(BatchPlan{.global_batch = options.train.global_batch,
                       .micro_batch = options.train.micro_batch,
                       .data = world_size / model_ranks},
             problems);
    const auto pipeline = pipeline_shape(options, world_size / model_ranks);
    cut_model(family, family.build(compute_type(options)), options, pipeline, problems);
  }
  family.validate_layout(options.parallel, problems);
}

CheckedLayout check_layout(const RunOptions& options, int64_t world_size, int64_t ranks_per_host) {
  return check_layout(options, *read_family(model_request(options)), world_size, ranks_per_host);
}

CheckedLayout check_layout(const RunOptions& options, const Family& family, int64_t world_size,
                           int64_t ranks_per_host) {
  Problems problems;
  validate_layout(options, family, world_size, problems, ranks_per_host);
  problems.throw_if_any();
  auto advice = family.layout_advice(options.parallel);
  if (options.parallel.sequence && options.parallel.tensor == 1)  // rule M9
    advice += std::string(advice.empty() ? "" : "; ") +
              "parallel.sequence = true does nothing: it needs parallel.tensor > 1, got 1";
  return {mesh_of(options, family), std::move(advice)};
}

}  // namespace triptych
