#include "parallel/group.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <numeric>

#include "base/clock.h"
#include "base/error.h"
#include "base/format.h"
#include "parallel/group_connection.h"
#include "parallel/weight_gradients.h"

namespace triptych {

namespace {

int64_t bytes_of(const at::Tensor& tensor) { return static_cast<int64_t>(tensor.nbytes()); }

/// Also on the meta device, where there are no addresses.
bool same_memory(const at::Tensor& a, const at::Tensor& b) {
  return a.is_alias_of(b) && a.storage_offset() == b.storage_offset();
}

c10d::ReduceOp to_c10d(ReduceOp op) {
  switch (op) {
    case ReduceOp::kMax:
      return c10d::ReduceOp::MAX;
    case ReduceOp::kMin:
      return c10d::ReduceOp::MIN;
    case ReduceOp::kSum:
      break;
  }
  return c10d::ReduceOp::SUM;
}

}  // namespace

Group::Group(std::shared_ptr<GroupHost> host, std::string name, std::vector<int64_t> members)
    : host_(std::move(host)), name_(std::move(name)), members_(std::move(members)) {
  const auto it = std::find(members_.begin(), members_.end(), host_->rank);
  require(it != members_.end(), "group ", name_, " ", members_text(members_),
          " does not hold rank ", host_->rank);
  rank_ = it - members_.begin();
}

void Group::plan_copy(const at::Tensor& copied) const {
  if (host_->planned && host_->device == c10::DeviceType::CPU) at::empty_like(copied);
}

Group::Group() = default;
Group::~Group() = default;

template <class Call>
Pending Group::launch(const char* operation, const at::Tensor& shaped_like, std::string_view tag,
                      std::vector<at::Tensor> tensors, int64_t bytes, const Call& call) {
  host_->log.count(name_, members_, operation, bytes);
  if (host_->planned) return {};
  auto& to = connection();
  auto work = std::make_shared<Pending::Work>();
  work->host = host_;
  work->tensors = std::move(tensors);
  work->text =
      fmt::format("{} #{} of {} {}{}{}", operation, ++to.sequence, name_, members_text(members_),
                  describe(shaped_like), tag.empty() ? std::string() : fmt::format(" '{}'", tag));
  if (host_->check_collectives) compare_records(*host_, members_, to.sequence, work->text);
  work->record = host_->log.begin(work->text);
  work->trace =
      start_trace(*host_, operation, name_, members_, tag, work->tensors, to.sequence, to.last_end);
  try {
    work->work = call(*to.backend);
  } catch (const std::exception& error) {
    host_->fail(work->text, message_of(error));
  }
  if (work->trace) work->trace->watch(*work->work);
  Pending pending;
  pending.work_ = std::move(work);
  return pending;
}

namespace {
/// What starts a message, with the number by which both ends know it.
template <class Start>
struct Numbered {
  int64_t number;
  Start start;
  auto operator()(c10d::Backend& backend) const { return start(backend); }
};
template <class Start>
Numbered(int64_t, Start) -> Numbered<Start>;
}  // namespace

template <class Call>
Pending Group::message(const char* operation, const at::Tensor& tensor, int64_t peer,
                       std::string_view tag, const Call& call) {
  require(tensor.is_contiguous() && peer >= 0 && peer < size() && peer != rank_, operation, " of ",
          name_, ": the tensor ", tensor.sizes(), " must be contiguous, and the peer ", peer,
          " another of the ", size(), " members");
  const bool sends = operation[0] == 's';
  host_->log.count(name_, members_, sends ? "send" : "receive", bytes_of(tensor));
  if (host_->planned) return {};
  auto& to = connection();
  auto work = std::make_shared<Pending::Work>();
  work->host = host_;
  work->tensors = {tensor};
  work->text =
      fmt::format("{} rank {} in {} {}{}{}", operation, members_[static_cast<size_t>(peer)], name_,
                  members_text(members_), describe(tensor),
                  tag.empty() ? std::string() : fmt::format(" '{}'", tag));
  try {
    const std::lock_guard lock(to.messages);
    const int64_t before = to.counts[{peer, sends, call.number}]++;
    if (trace_sink() != nullptr) {
      auto last_end = sends ? to.last_sent[peer] : nullptr;
      if (sends && !last_end)
        last_end = to.last_sent[peer] = std::make_shared<std::atomic<int64_t>>(0);
      const int64_t theirs = members_[static_cast<size_t>(peer)];
      work->trace = start_trace(*host_, operation, name_, members_, tag, work->tensors,
                                before << 31 | call.number, std::move(last_end));
      if (work->trace)
        work->trace->between(sends ? host_->rank : theirs, sends ? theirs : host_->rank);
    }
    work->work = call(*to.backend);
  } catch (const std::exception& error) {
    host_->fail(work->text, message_of(error));
  }
  Pending pending;
  pending.work_ = std::move(work);
  return pending;
}

Pending Group::send_async(const at::Tensor& tensor, int64_t to, int64_t number,
                          std::string_view tag) {
  return message("send to", tensor, to, tag, Numbered{number, [&](c10d::Backend& backend) {
                                                        std::vector<at::Tensor> tensors{tensor};
                                                        return backend.send(
                                                            tensors, static_cast<int>(to),
                                                            static_cast<int>(number));
                                                      }});
}

Pending Group::receive_async(const at::Tensor& tensor, int64_t from, int64_t number,
                             std::string_view tag) {
  return message("receive from", tensor, from, tag,
                 Numbered{number, [&](c10d::Backend& backend) {
                            std::vector<at::Tensor> tensors{tensor};
                            return backend.recv(tensors, static_cast<int>(from),
                                                static_cast<int>(number));
                          }});
}

void Group::connect() {
  if (size() > 1 && !host_->planned) connection();
}

Pending Group::all_reduce_async(const at::Tensor& tensor, ReduceOp op, std::string_view tag) {
  require(tensor.is_contiguous(), "all_reduce of ", name_, ": the tensor ", tensor.sizes(),
          " must be contiguous");
  if (size() == 1) return {};
  return launch("all_reduce", tensor, tag, {tensor}, bytes_of(tensor), [&](c10d::Backend& backend) {
    c10d::AllreduceOptions options;
    options.reduceOp = to_c10d(op);
    std::vector<at::Tensor> tensors{tensor};
    return backend.allreduce(tensors, options);
  });
}

Pending Group::all_gather_into_async(const at::Tensor& output, const at::Tensor& input,
                                     std::string_view tag) {
  require(output.is_contiguous() && input.is_contiguous() &&
              output.numel() == input.numel() * size() &&
              output.scalar_type() == input.scalar_type(),
          "all_gather of ", name_, ": output ", output.sizes(), " must be contiguous and ", size(),
          " times the contiguous input ", input.sizes(), " of the same dtype");
  if (size() == 1) {
    if (!same_memory(output, input)) output.view(-1).copy_(input.view(-1));
    return {};
  }
  plan_copy(output);
  return launch(
      "all_gather", output, tag, {output, input}, bytes_of(output), [&](c10d::Backend& backend) {
        auto out = output.view(-1), in = input.view(-1);  // c10d compares shapes, not counts
        return backend._allgather_base(out, in);
      });
}

Pending Group::reduce_scatter_into_async(const at::Tensor& output, const at::Tensor& input,
                                         std::string_view tag) {
  require(output.is_contiguous() && input.is_contiguous() &&
              input.numel() == output.numel() * size() &&
              output.scalar_type() == input.scalar_type(),
          "reduce_scatter of ", name_, ": input ", input.sizes(), " must be contiguous and ",
          size(), " times the contiguous output ", output.sizes(), " of the same dtype");
  if (size() == 1) {
    if (!same_memory(output, input)) output.view(-1).copy_(input.view(-1));
    return {};
  }
  const auto mine = input.view(-1).narrow(0, rank_ * output.numel(), output.numel());
  if (same_memory(mine, output) && scatters_by_all_reduce(host_->device)) {
    // Gloo would copy the whole input and all-reduce the copy
    return launch("reduce_scatter", input, tag, {output, input}, bytes_of(input),
                  [&](c10d::Backend& backend) {
                    std::vector<at::Tensor> tensors{input};
                    return backend.allreduce(tensors);
                  });
  }
  plan_copy(input);
  return launch(
      "reduce_scatter", input, tag, {output, input}, bytes_of(input), [&](c10d::Backend& backend) {
        auto out = output.view(-1), in = input.view(-1);  // c10d compares shapes, not counts
        return backend._reduce_scatter_base(out, in);
      });
}

Pending Group::all_to_all_async(const at::Tensor& output, const at::Tensor& input,
                                std::span<const int64_t> output_rows,
                                std::span<const int64_t> input_rows, std::string_view tag) {
  const auto total = [](std::span<const int64_t> rows) {
    return std::accumulate(rows.begin(), rows.end(), int64_t{0});
  };
  require(output.is_contiguous() && input.is_contiguous() && input.dim() > 0 &&
              output.scalar_type() == input.scalar_type() &&
              output.sizes().slice(1) == input.sizes().slice(1) &&
              static_cast<int64_t>(output_rows.size()) == size() &&
              static_cast<int64_t>(input_rows.size()) == size() &&
              total(output_rows) == output.size(0) && total(input_rows) == input.size(0),
          "all_to_all of ", name_, ": output ", output.sizes(), " and input ", input.sizes(),
          " must be contiguous, with rows alike, and hold ", total(output_rows), " and ",
          total(input_rows), " rows for ", size(), " members");
  if (size() == 1) {
    output.copy_(input);
    return {};
  }
  // What it is called with differs from rank to rank: shapes stay out of the record.
  const auto elements = [&](std::span<const int64_t> rows) {
    std::vector<int64_t> counts;
    const int64_t row = c10::multiply_integers(input.sizes().slice(1));
    for (const auto n : rows) counts.push_back(n * row);
    return counts;
  };
  auto output_counts = elements(output_rows), input_counts = elements(input_rows);
  const int64_t others = bytes_of(input) - input_counts[static_cast<size_t>(rank_)] *
                                               static_cast<int64_t>(input.element_size());
  return launch("all_to_all", at::Tensor(), tag, {output, input}, others,
                [&](c10d::Backend& backend) {
                  auto out = output.view(-1), in = input.view(-1);
                  return backend.alltoall_base(out, in, output_counts, input_counts);
                });
}

void Group::all_to_all(const at::Tensor& output, const at::Tensor& input,
                       std::span<const int64_t> output_rows, std::span<const int64_t> input_rows,
                       std::string_view tag) {
  all_to_all_async(output, input, output_rows, input_rows, tag).wait();
}

void Group::all_reduce(const at::Tensor& tensor, ReduceOp op, std::string_view tag) {
  all_reduce_async(tensor, op, tag).wait();
}

void Group::all_gather_into(const at::Tensor& output, const at::Tensor& input,
                            std::string_view tag) {
  all_gather_into_async(output, input, tag).wait();
}

void Group::reduce_scatter_into(const at::Tensor& output, const at::Tensor& input,
                                std::string_view tag) {
  reduce_scatter_into_async(output, input, tag).wait();
}

void Group::broadcast(const at::Tensor& tensor, int64_t root, std::string_view tag) {
  require(tensor.is_contiguous() && root >= 0 && root < size(), "broadcast of ", name_,
          ": the tensor ", tensor.sizes(), " must be contiguous and the root ", root, " below ",
          size());
  if (size() == 1) return;
  launch("broadcast", tensor, tag, {tensor}, bytes_of(tensor), [&](c10d::Backend& backend) {
    c10d::BroadcastOptions options;
    options.rootRank = root;
    std::vector<at::Tensor> tensors{tensor};
    return backend.broadcast(tensors, options);
  }).wait();
}

void Group::keep_busy_with(std::shared_ptr<WeightGradients> products) {
  products_ = std::move(products);
}

/// Not until the exchange is done: gradients that come of products start and await collectives of
/// other groups, and ranks that do so at different places can wait for each other in a circle.
void Group::compute_beside(const Pending& exchange) {
  // In a plan nothing is ever under way, and all is computed as if it were.
  if (!products_ || !(exchange.waiting() || host_->planned)) return;
  for (auto count = (products_->waiting() + 1) / 2; count > 0; --count) products_->run_oldest();
}

void Group::barrier(std::string_view tag) {
  if (size() == 1) return;
  launch("barrier", {}, tag, {}, 0, [](c10d::Backend& backend) {
    return backend.barrier();
  }).wait();
}

std::vector<std::string> Group::all_gather_strings(const std::string& mine, std::string_view tag) {
  if (size() == 1) return {mine};
  if (host_->planned) return std::vector<std::string>(static_cast<size_t>(size()), mine);
  const auto lengths = at::zeros({size()}, at::kLong);
  const auto length = lengths.narrow(0, rank_, 1);
  length.fill_(static_cast<int64_t>(mine.size()));
  all_gather_into(lengths, length.clone(), tag);
  const auto longest = std::max<int64_t>(1, lengths.max().item<int64_t>());
  const auto text = at::zeros({longest}, at::kByte),
             texts = at::empty({size(), longest}, at::kByte);
  std::memcpy(text.data_ptr(), mine.data(), mine.size());
  all_gather_into(texts, text, tag);
  std::vector<std::string> result;
  for (int64_t i = 0; i < size(); ++i) {
    const auto* begin = static_cast<const char*>(texts.const_data_ptr()) + i * longest;
    result.emplace_back(begin, static_cast<size_t>(lengths[i].item<int64_t>()));
  }
  return result;
}

}  // namespace triptych
