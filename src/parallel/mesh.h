#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "base/error.h"
#include "parallel/axis.h"

namespace triptych {

/// The dims of the mesh once the context axis is factored: Ulysses is its inner (faster) half, the
/// ring its outer one.
enum class MeshDim : uint8_t { kTensor, kUlysses, kRing, kData, kPipeline };
inline constexpr int kNumMeshDims = 5;

/// A subset of the mesh's dims; groups are named by the dims that vary inside them.
class MeshDims {
 public:
  constexpr MeshDims() = default;
  constexpr MeshDims(std::initializer_list<MeshDim> dims) {
    for (const auto dim : dims) bits_ |= bit(dim);
  }
  constexpr bool has(MeshDim dim) const { return (bits_ & bit(dim)) != 0; }
  constexpr MeshDims operator|(MeshDims other) const {
    MeshDims both;
    both.bits_ = static_cast<uint8_t>(bits_ | other.bits_);
    return both;
  }
  friend constexpr bool operator==(MeshDims, MeshDims) = default;
  friend constexpr auto operator<=>(MeshDims, MeshDims) = default;

 private:
  static constexpr uint8_t bit(MeshDim dim) {
    return static_cast<uint8_t>(1U << static_cast<unsigned>(dim));
  }
  uint8_t bits_ = 0;
};

/// The groups that training asks for (docs/spec/parallelism.md, 1.2). Those that come from a part
/// of an axis (first and last stage, shared key/value heads) are lists of ranks of their own.
inline constexpr MeshDims kTensorGroup{MeshDim::kTensor};
inline constexpr MeshDims kUlyssesGroup{MeshDim::kUlysses};
inline constexpr MeshDims kRingGroup{MeshDim::kRing};
inline constexpr MeshDims kContextGroup{MeshDim::kUlysses, MeshDim::kRing};
inline constexpr MeshDims kDataGroup{MeshDim::kData};
inline constexpr MeshDims kPipelineGroup{MeshDim::kPipeline};
/// Ranks that hold the same parameters: gradients are summed and optimizer states shared out here.
inline constexpr MeshDims kGradientGroup = kDataGroup | kContextGroup;
/// Ranks that together hold the model once.
inline constexpr MeshDims kModelGroup{MeshDim::kTensor, MeshDim::kPipeline};
inline constexpr MeshDims kTensorContextGroup = kTensorGroup | kContextGroup;
inline constexpr MeshDims kWorldGroup = kGradientGroup | kModelGroup;

/// "tensor", "data x context" and so on, for messages and store keys.
std::string to_string(MeshDims dims);

/// Sizes of the axes as the run file gives them; data parallelism takes the rest of the processes.
struct MeshShape {
  int64_t tensor = 1;
  int64_t context = 1;
  int64_t ulysses = 1;  ///< inner factor of context
  int64_t pipeline = 1;
  /// Fastest varying first: neighbours in rank are closest. An axis of size 1 may be left out.
  std::vector<Axis> order = {Axis::kTensor, Axis::kContext, Axis::kData, Axis::kPipeline};
};

/// Rules M1 and M7 of docs/spec/parallelism.md 1.5, and that `order` names every axis larger than 1
/// once.
void validate(const MeshShape& shape, int64_t world_size, Problems& problems);

/// Place of one rank, indexed by MeshDim.
struct MeshCoordinates {
  std::array<int64_t, kNumMeshDims> at{};
  int64_t operator[](MeshDim dim) const { return at[static_cast<size_t>(dim)]; }
  int64_t& operator[](MeshDim dim) { return at[static_cast<size_t>(dim)]; }
  friend bool operator==(const MeshCoordinates&, const MeshCoordinates&) = default;
};

/// All ranks as a grid. With the default order
///   rank = tensor + T * (ulysses + U * (ring + R * (data + D * pipeline)))
/// Checkpoints are keyed by coordinates and names, never by rank: the order is free to change.
class Mesh {
 public:
  /// One process.
  Mesh() : Mesh(1, MeshShape{}) {}
  /// @throws UsageError with every rule that `validate` finds broken.
  Mesh(int64_t world_size, const MeshShape& shape);

  int64_t world_size() const { return world_size_; }
  int64_t size(MeshDim dim) const { return sizes_[static_cast<size_t>(dim)]; }
  /// Product over the subset.
  int64_t size(MeshDims dims) const;

  MeshCoordinates coordinates(int64_t rank) const;
  int64_t rank(const MeshCoordinates& coordinates) const;

  /// The ranks of the group over `dims` that holds `coordinates`, ascending: coordinates outside
  /// the subset stay, those inside run in mesh order.
  std::vector<int64_t> ranks(MeshDims dims, const MeshCoordinates& coordinates) const;
  std::vector<int64_t> ranks(MeshDims dims, int64_t rank) const {
    return ranks(dims, coordinates(rank));
  }
  /// All groups over `dims`, by their lowest rank.
  std::vector<std::vector<int64_t>> groups(MeshDims dims) const;

 private:
  int64_t world_size_ = 1;
  std::array<int64_t, kNumMeshDims> sizes_{};
  std::array<int64_t, kNumMeshDims> strides_{};
  std::array<MeshDim, kNumMeshDims> order_{};  // fastest first
};

}  // namespace triptych
