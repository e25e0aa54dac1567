#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/processor.h"
#include "data/worker_pool.h"

namespace triptych {

/// Sizes of a dataset's records, measured once by a pool of workers: 16 bytes a record.
/// Threads: one may call ensure(), at() and refuse(); report functions may be called by any.
class SizeCache {
 public:
  /// @param stop  read before each measurement; true leaves the rest unmeasured (shutting down)
  SizeCache(const Dataset& dataset, const Processor& processor, int64_t max_length,
            const std::atomic<bool>& stop);

  /// Measures those of `refs` that are not yet known and returns when all are. Failures other than
  /// DataError are thrown, the first of them in the order of `refs`.
  void ensure(std::span<const RecordRef> refs, WorkerPool& pool);

  /// @return nullptr for a bad record. @pre ensured
  const SampleSize* at(RecordRef ref) const;

  /// Throws what is wrong with a bad record.
  [[noreturn]] void refuse(RecordRef ref) const;

  int64_t num_bad() const;
  std::vector<std::string> bad_messages() const;  ///< the first kMostMessages found

  static constexpr size_t kMostMessages = 1000;

 private:
  enum class State : uint8_t { kUnknown, kGood, kBad };

  void measure(RecordRef ref);
  SampleSize checked_size(RecordRef ref) const;

  const Dataset& dataset_;
  const Processor& processor_;
  int64_t max_length_;
  const std::atomic<bool>& stop_;
  std::vector<std::vector<SampleSize>> sizes_;  // [source][record]
  std::vector<std::vector<State>> states_;      // the same

  mutable std::mutex mutex_;  // guards what follows
  int64_t num_bad_ = 0;
  std::vector<std::string> messages_;
};

}  // namespace triptych
