#include "data/size_cache.h"

#include <algorithm>
#include <exception>

#include "base/error.h"

namespace triptych {

SizeCache::SizeCache(const Dataset& dataset, const Processor& processor, int64_t max_length,
                     const std::atomic<bool>& stop)
    : dataset_(dataset), processor_(processor), max_length_(max_length), stop_(stop) {
  for (int32_t s = 0; s < dataset.num_sources(); ++s) {
    sizes_.emplace_back(dataset.size(s));
    states_.emplace_back(dataset.size(s), State::kUnknown);
  }
}

void SizeCache::ensure(std::span<const RecordRef> refs, WorkerPool& pool) {
  std::vector<RecordRef> unknown;
  for (const auto ref : refs) {
    auto& state = states_[static_cast<size_t>(ref.source)][static_cast<size_t>(ref.record)];
    if (state != State::kUnknown) continue;
    state = State::kBad;  // marked, so that a record which occurs twice here is measured once
    unknown.push_back(ref);
  }
  std::vector<std::exception_ptr> failures(unknown.size());
  pool.for_each(static_cast<int64_t>(unknown.size()), [&](int64_t i) {
    if (stop_) return;
    try {
      measure(unknown[static_cast<size_t>(i)]);
    } catch (...) {
      failures[static_cast<size_t>(i)] = std::current_exception();
    }
  });
  for (const auto& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

void SizeCache::measure(RecordRef ref) {
  const auto s = static_cast<size_t>(ref.source), r = static_cast<size_t>(ref.record);
  try {
    sizes_[s][r] = checked_size(ref);
    states_[s][r] = State::kGood;
  } catch (const DataError& error) {
    const std::lock_guard lock(mutex_);
    ++num_bad_;
    if (messages_.size() < kMostMessages) messages_.emplace_back(error.what());
  }
}

SampleSize SizeCache::checked_size(RecordRef ref) const {
  const auto size = processor_.measure(dataset_.conversation(ref));
  require<DataError>(size.tokens > 0 && size.tokens <= max_length_, dataset_.origin(ref), ": has ",
                     size.tokens, " tokens; allowed are 1 to data.max_length = ", max_length_);
  return size;
}

const SampleSize* SizeCache::at(RecordRef ref) const {
  const auto s = static_cast<size_t>(ref.source), r = static_cast<size_t>(ref.record);
  return states_[s][r] == State::kGood ? &sizes_[s][r] : nullptr;
}

void SizeCache::refuse(RecordRef ref) const {
  checked_size(ref);  // the words were not kept; say them again
  fail<DataError>(dataset_.origin(ref), ": could not be used before, and now it can: ",
                  "the data change while they are read");
}

int64_t SizeCache::num_bad() const {
  const std::lock_guard lock(mutex_);
  return num_bad_;
}

std::vector<std::string> SizeCache::bad_messages() const {
  const std::lock_guard lock(mutex_);
  return messages_;
}

}  // namespace triptych
