#include "parallel/schedule.h"

#include <algorithm>
#include <array>

#include "base/format.h"

namespace triptych {

void validate(const PipelineShape& s, Problems& problems) {
  problems.check(s.chunks == 1 || s.stages > 1, "parallel.virtual = ", s.chunks,
                 " needs parallel.pipeline > 1, got ", s.stages);
  if (s.stages == 1) return;
  problems.check(s.order != PipelineOrder::kZeroBubbleH1 || s.chunks == 1,
                 "parallel.schedule = \"zb_h1\" needs parallel.virtual = 1, got ", s.chunks);
  if (s.chunks == 1) return;
  const int64_t group = s.group_size(), last = s.micro_batches % group;
  problems.check(group >= s.stages, "parallel.micro_batch_group (", group,
                 ") must be at least parallel.pipeline (", s.stages,
                 "): a smaller group waits for its own first micro-batch");
  problems.check(
      s.micro_batches >= s.stages && (last == 0 || last >= s.stages),
      "parallel.virtual = ", s.chunks, ": the interleaved schedule needs micro-batches (",
      s.micro_batches, ") to be a multiple of ",
      s.group > 0 ? "parallel.micro_batch_group" : "parallel.pipeline", " (", group,
      ") or to leave at least ", s.stages, " for the last group; ", s.micro_batches, " mod ", group,
      " = ", last, "; micro-batches = train.global_batch / (train.micro_batch * data ranks)");
}

const char* name_of(SlotKind kind) {
  constexpr std::array kNames = {"forward", "backward", "backward input", "backward weight"};
  return kNames[static_cast<size_t>(kind)];
}

namespace {

/// Micro-batch and chunk of every forward of the interleaved schedule, in order.
std::vector<Slot> interleaved_table(const PipelineShape& s) {
  std::vector<Slot> table;
  for (int64_t first = 0; first < s.micro_batches; first += s.group_size()) {
    const int64_t end = std::min(first + s.group_size(), s.micro_batches);
    for (int64_t chunk = 0; chunk < s.chunks; ++chunk) {
      for (int64_t i = first; i < end; ++i) table.push_back({SlotKind::kForward, i, chunk});
    }
  }
  return table;
}

SlotList one_forward_one_backward(const PipelineShape& s, int64_t rank) {
  const auto forwards = interleaved_table(s);
  const auto total = static_cast<int64_t>(forwards.size());
  int64_t warm_up = s.stages - rank - 1;
  if (s.chunks > 1) warm_up = 2 * warm_up + (s.chunks - 1) * s.group_size();
  warm_up = std::min(warm_up, total);

  SlotList list;
  const auto forward = [&](int64_t k) { list.push_back(forwards[static_cast<size_t>(k)]); };
  const auto backward = [&](int64_t k) {
    auto slot = forwards[static_cast<size_t>(k)];
    slot.kind = SlotKind::kBackward;
    slot.chunk = s.chunks - 1 - slot.chunk;
    list.push_back(slot);
  };
  for (int64_t k = 0; k < warm_up; ++k) forward(k);
  for (int64_t k = 0; k < total - warm_up; ++k) {
    forward(warm_up + k);
    backward(k);
  }
  for (int64_t k = total - warm_up; k < total; ++k) backward(k);
  return list;
}

SlotList zero_bubble_h1(const PipelineShape& s, int64_t rank) {
  const int64_t m = s.micro_batches, warm_up = std::min(s.stages - rank - 1, m);
  SlotList list;
  for (int64_t i = 0; i < warm_up; ++i) list.push_back({SlotKind::kForward, i, 0});
  for (int64_t i = 0; i < m; ++i) {
    if (warm_up + i < m) list.push_back({SlotKind::kForward, warm_up + i, 0});
    list.push_back({SlotKind::kBackwardInput, i, 0});
    // Rank r is r transfers nearer to the end of the line: so many weight gradients can wait
    // until the last input gradients are on their way.
    if (i >= rank) list.push_back({SlotKind::kBackwardWeight, i - rank, 0});
  }
  for (int64_t i = std::max<int64_t>(0, m - rank); i < m; ++i)
    list.push_back({SlotKind::kBackwardWeight, i, 0});
  return list;
}

}  // namespace

SlotList stage_schedule(const PipelineShape& shape, int64_t rank) {
  require(rank >= 0 && rank < shape.stages, "schedule: rank ", rank, " of ", shape.stages,
          " stages");
  return shape.order == PipelineOrder::kZeroBubbleH1 ? zero_bubble_h1(shape, rank)
                                                     : one_forward_one_backward(shape, rank);
}

SlotList forward_schedule(const PipelineShape& shape, int64_t rank) {
  require(rank >= 0 && rank < shape.stages, "schedule: rank ", rank, " of ", shape.stages,
          " stages");
  return interleaved_table(shape);
}

double SlotTimes::of(SlotKind kind) const {
  switch (kind) {
    case SlotKind::kForward:
      return forward;
    case SlotKind::kBackwardInput:
      return backward_input;
    case SlotKind::kBackwardWeight:
      return backward_weight;
    case SlotKind::kBackward:
      break;
  }
  return backward_input + backward_weight;
}

namespace {

/// When the results of every (virtual stage, micro-batch) are there; negative: not yet.
class Finished {
 public:
  explicit Finished(const PipelineShape& s)
      : micro_batches_(s.micro_batches),
        forward_(static_cast<size_t>(s.virtual_stages() * s.micro_batches), -1),
        backward_(forward_) {}
  double& forward(int64_t stage, int64_t micro_batch) { return forward_[at(stage, micro_batch)]; }
  double& backward(int64_t stage, int64_t micro_batch) { return backward_[at(stage, micro_batch)]; }

 private:
  size_t at(int64_t stage, int64_t micro_batch) const {
    return static_cast<size_t>(stage * micro_batches_ + micro_batch);
  }
  int64_t micro_batches_;
  std::vector<double> forward_, backward_;
};

/// The earliest time at which everything that a slot needs is on its rank; negative: not yet.
double ready_at(const PipelineShape& s, int64_t stage, const Slot& slot,
                std::span<const SlotTimes> times, Finished& done) {
  const int64_t i = slot.micro_batch;
  const auto sent = [&](double end, int64_t from) {
    return end < 0 ? end : end + times[static_cast<size_t>(from)].transfer;
  };
  switch (slot.kind) {
    case SlotKind::kForward:
      return stage == 0 ? 0 : sent(done.forward(stage - 1, i), stage - 1);
    case SlotKind::kBackwardWeight:
      return done.backward(stage, i);
    case SlotKind::kBackward:
    case SlotKind::kBackwardInput:
      break;
  }
  const double own = done.forward(stage, i);
  if (own < 0 || stage + 1 == s.virtual_stages()) return own;
  const double gradient = sent(done.backward(stage + 1, i), stage + 1);
  return gradient < 0 ? gradient : std::max(own, gradient);
}

int64_t peak_in_flight(const SlotList& list) {
  // A forward's activations are held until its last slot: the weights' where they are apart.
  const bool split = std::any_of(list.begin(), list.end(), [](const Slot& slot) {
    return slot.kind == SlotKind::kBackwardWeight;
  });
  const auto last = split ? SlotKind::kBackwardWeight : SlotKind::kBackward;
  int64_t now = 0, peak = 0;
  for (const auto& slot : list) {
    if (slot.kind == SlotKind::kForward) peak = std::max(peak, ++now);
    if (slot.kind == last) --now;
  }
  return peak;
}

Simulation replay(const PipelineShape& shape, const std::vector<SlotList>& lists,
                  std::span<const SlotTimes> times) {
  Finished done(shape);
  Simulation result;
  result.slots.resize(lists.size());
  std::vector<size_t> next(lists.size());
  std::vector<double> free_at(lists.size());
  size_t left = 0;
  for (const auto& list : lists) {
    left += list.size();
    result.peak_in_flight.push_back(peak_in_flight(list));
  }
  while (left > 0) {
    const size_t before = left;
    for (size_t rank = 0; rank < lists.size(); ++rank) {
      while (next[rank] < lists[rank].size()) {
        const auto& slot = lists[rank][next[rank]];
        const int64_t stage = slot.chunk * shape.stages + static_cast<int64_t>(rank);
        const double ready = ready_at(shape, stage, slot, times, done);
        if (ready < 0) break;
        const double begin = std::max(ready, free_at[rank]),
                     end = begin + times[static_cast<size_t>(stage)].of(slot.kind);
        if (slot.kind == SlotKind::kForward) done.forward(stage, slot.micro_batch) = end;
        if (slot.kind == SlotKind::kBackward || slot.kind == SlotKind::kBackwardInput)
          done.backward(stage, slot.micro_batch) = end;
        result.slots[rank].push_back({slot, begin, end});
        free_at[rank] = end;
        ++next[rank];
        --left;
      }
    }
    if (left < before) continue;
    std::string waiting;
    for (size_t rank = 0; rank < lists.size(); ++rank) {
      if (next[rank] == lists[rank].size()) continue;
      const auto& slot = lists[rank][next[rank]];
      waiting += fmt::format("; rank {} waits for {} of micro-batch {}, chunk {}", rank,
                             name_of(slot.kind), slot.micro_batch, slot.chunk);
    }
    fail("pipeline schedule: deadlock", waiting);
  }
  double idle = 0, working = 0;
  for (const auto& slots : result.slots) {
    if (!slots.empty()) result.makespan = std::max(result.makespan, slots.back().end);
  }
  for (const auto& slots : result.slots) {
    double work = 0;
    for (const auto& slot : slots) work += slot.end - slot.begin;
    if (work <= 0) continue;  // a stage of vision alone, where there is none to see
    idle += result.makespan / work - 1;
    ++working;
  }
  result.bubble = idle / std::max(1.0, working);
  return result;
}

std::vector<SlotList> all_lists(const PipelineShape& shape) {
  std::vector<SlotList> lists;
  for (int64_t rank = 0; rank < shape.stages; ++rank) lists.push_back(stage_schedule(shape, rank));
  return lists;
}

}  // namespace

Simulation simulate(const PipelineShape& shape, const std::vector<SlotList>& lists,
                    const SlotTimes& times) {
  return replay(shape, lists,
                std::vector<SlotTimes>(static_cast<size_t>(shape.virtual_stages()), times));
}

Simulation simulate(const PipelineShape& shape, std::span<const SlotTimes> times) {
  require(static_cast<int64_t>(times.size()) == shape.virtual_stages(), "schedule: ", times.size(),
          " times for ", shape.virtual_stages(), " virtual stages");
  return replay(shape, all_lists(shape), times);
}

Simulation simulate(const PipelineShape& shape, const SlotTimes& times) {
  return simulate(shape, all_lists(shape), times);
}

double bubble_formula(const PipelineShape& shape, const SlotTimes& times) {
  const double F = times.forward, I = times.backward_input, W = times.backward_weight;
  const auto p = static_cast<double>(shape.stages);
  const double idle =
      (p - 1) * (shape.order == PipelineOrder::kZeroBubbleH1 ? F + I - W : F + I + W);
  return idle / (static_cast<double>(shape.micro_batches * shape.chunks) * (F + I + W));
}

}  // namespace triptych
