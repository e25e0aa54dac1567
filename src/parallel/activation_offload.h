#pragma once

// Activations that wait for backward in the host's memory.

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/StorageImpl.h>
#include <c10/util/intrusive_ptr.h>

#include <deque>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "parallel/saved_tensors.h"

namespace triptych {

struct OffloadSettings {
  at::Device device = at::kCPU;            ///< whose activations move
  int64_t least_bytes = int64_t{1} << 20;  ///< smaller tensors stay
  int64_t copies_behind = 16;  ///< copies that may be under way before compute waits for the oldest
};

/// Counts since construction; bytes_held are on the host now.
struct OffloadCounts {
  int64_t copies = 0, copied_bytes = 0, fetches = 0, fetched_ahead = 0;
  int64_t bytes_held = 0, most_bytes_held = 0;
};

/// Copies what is saved to the host while the layers compute, and back one layer ahead of backward.
///
/// On an accelerator the host's memory is pinned, each direction has a stream of its own, and
/// compute waits by events only; device memory is freed as soon as its copy is done. On the CPU the
/// same steps are plain copies into memory of their own: for tests, they save nothing. Tensors that
/// share storage are copied once (all of it where most is used, else their part), and come back
/// with their sizes and strides. Values are never changed: the same bits with and without.
///
/// Threads: packing by one at a time; unpacking by any.
class ActivationOffload {
 public:
  explicit ActivationOffload(const OffloadSettings& settings);
  ~ActivationOffload();
  ActivationOffload(const ActivationOffload&) = delete;
  ActivationOffload& operator=(const ActivationOffload&) = delete;

  /// A run over layers begins: a micro-batch, or its part on this stage.
  void begin_pass();
  /// What is packed from now on is fetched together, when backward comes to the layer behind.
  void begin_layer();

  /// Null: it stays where it is (small, or on another device). Parameters are the caller's to know.
  std::unique_ptr<PackedTensor> pack(const at::Tensor& tensor);

  OffloadCounts counts() const;

 private:
  class HostCopy;
  class Packed;
  class Transfers;
  struct Group;
  struct Shared;

  static constexpr int64_t kAlignment = 64;

  /// Bytes of a storage.
  struct Part {
    int64_t begin = 0, bytes = 0;
    bool operator==(const Part&) const = default;
  };
  /// What was copied of a storage last. The weak pointer keeps its address from being used again.
  struct Known {
    c10::weak_intrusive_ptr<c10::StorageImpl> storage{c10::intrusive_ptr<c10::StorageImpl>()};
    int64_t version = 0;
    Part part;
    std::weak_ptr<HostCopy> copy;
  };

  void begin_group(std::shared_ptr<Group> before);

  OffloadSettings settings_;
  std::shared_ptr<Shared> shared_;  ///< also held by the copies, which may outlive this
  std::shared_ptr<Group> group_;
  std::unordered_map<const c10::StorageImpl*, Known> known_;
};

}  // namespace triptych
