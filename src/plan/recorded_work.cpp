#include "plan/recorded_work.h"

#include <ATen/record_function.h>

#include <algorithm>
#include <memory>
#include <string_view>

#include "plan/run_plan.h"
#include "train/run_layout.h"
#include "train/run_setup.h"

namespace triptych {

namespace {

// The callback takes no argument of ours; plans run on one thread.
thread_local RecordedWork* recording = nullptr;

bool columns_contiguous(const at::Tensor& x) { return x.stride(0) == 1 && x.stride(1) != 1; }

void note_product(const at::Tensor& a, const at::Tensor& b) {
  if (a.dim() != 2 || b.dim() != 2 || a.numel() == 0 || b.numel() == 0) return;
  ++recording->products[{.M = a.size(0),
                         .K = a.size(1),
                         .N = b.size(1),
                         .a_transposed = columns_contiguous(a),
                         .b_transposed = columns_contiguous(b),
                         .dtype = a.scalar_type()}];
}

std::vector<int64_t> values_of(const at::Tensor& bounds) {
  const auto host = bounds.to(at::kLong).contiguous();
  const auto* first = host.const_data_ptr<int64_t>();
  return {first, first + host.numel()};
}

/// @param at  place of q among the inputs: 0 forward, 1 backward
void note_attention(c10::ArrayRef<c10::IValue> inputs, size_t at) {
  const auto &q = inputs[at].toTensor(), &k = inputs[at + 1].toTensor();
  const size_t bounds = at == 0 ? 3 : 6;  // behind v, in backward behind out and lse
  if (q.numel() == 0 || k.numel() == 0) return;
  ++recording->attention[{.H = q.size(1),
                          .G = k.size(1),
                          .K = q.size(2),
                          .causal = inputs[bounds + 2].toBool(),
                          .backward = at == 1,
                          .queries = values_of(inputs[bounds].toTensor()),
                          .keys = values_of(inputs[bounds + 1].toTensor()),
                          .dtype = q.scalar_type()}];
}

struct AttentionCall : at::ObserverContext {};

// An operator with a gradient calls itself once more below it.
thread_local int64_t inside_attention = 0;

std::unique_ptr<at::ObserverContext> on_call(const at::RecordFunction& call) {
  if (recording == nullptr) return nullptr;
  const std::string_view name = call.name();
  const auto inputs = call.inputs();
  if (name == "aten::mm") note_product(inputs[0].toTensor(), inputs[1].toTensor());
  if (name == "aten::addmm") note_product(inputs[1].toTensor(), inputs[2].toTensor());
  const bool forward = name == "triptych::varlen_attention";
  if (!forward && name != "triptych::varlen_attention_backward") return nullptr;
  if (inside_attention++ == 0) note_attention(inputs, forward ? 0 : 1);
  return std::make_unique<AttentionCall>();
}

void on_end(const at::RecordFunction& /*call*/, at::ObserverContext* attention) {
  if (attention != nullptr) --inside_attention;
}

/// While it lives, calls of operators on this thread are noted.
class Recording {
 public:
  explicit Recording(RecordedWork& work)
      : handle_(at::addThreadLocalCallback(at::RecordFunctionCallback(on_call, on_end)
                                               .needsInputs(true)
                                               .scopes({at::RecordScope::FUNCTION}))) {
    recording = &work;
  }
  ~Recording() {
    recording = nullptr;
    at::removeCallback(handle_);
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

 private:
  at::CallbackHandle handle_;
};

}  // namespace

double AttentionShape::flop() const {
  double pairs = 0;
  for (size_t i = 1; i < queries.size(); ++i)
    pairs += static_cast<double>(queries[i] - queries[i - 1]) *
             static_cast<double>(keys[i] - keys[i - 1]);
  const double forward =
      4 * static_cast<double>(H * K) * pairs * (causal && queries == keys ? 0.5 : 1);
  return backward ? 2.5 * forward : forward;
}

RecordedWork record_work(const RunOptions& given, int64_t processes, int64_t rank,
                         int64_t ranks_per_host, const PlanData* data) {
  const auto options = without_weights(given);
  const auto family = read_family(model_request(options));
  const auto mesh = check_layout(options, *family, processes, ranks_per_host).mesh;
  const Mesh ranks(processes, mesh);
  const PlannedRows rows(options, *family, ranks.size(MeshDim::kData), data);
  auto batches = rows.first_step(ranks.coordinates(rank)[MeshDim::kData]);
  RecordedWork work;
  const Recording recording(work);
  // As many micro-batches as a pipeline's schedule needs: of typical rows the shapes are the same
  // in all.
  const int64_t few = options.parallel.virtual_chunks > 1 ? options.parallel.pipeline : 1;
  batches.resize(std::min(batches.size(), static_cast<size_t>(few)));
  plan_rank(options, mesh, processes, rank, batches, ranks_per_host);
  return work;
}

}  // namespace triptych
