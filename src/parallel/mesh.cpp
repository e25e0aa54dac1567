#include "parallel/mesh.h"

#include <algorithm>

#include "base/format.h"

namespace triptych {

namespace {

constexpr const char* kAxisNames[] = {"tensor", "context", "data", "pipeline"};

const char* name(Axis axis) { return kAxisNames[static_cast<size_t>(axis)]; }

std::array<MeshDim, kNumMeshDims> dims_in_order(const std::vector<Axis>& order) {
  std::vector<MeshDim> dims;
  const auto append = [&](Axis axis) {
    switch (axis) {
      case Axis::kTensor:
        dims.push_back(MeshDim::kTensor);
        break;
      case Axis::kContext:
        dims.push_back(MeshDim::kUlysses);
        dims.push_back(MeshDim::kRing);
        break;
      case Axis::kData:
        dims.push_back(MeshDim::kData);
        break;
      case Axis::kPipeline:
        dims.push_back(MeshDim::kPipeline);
        break;
    }
  };
  for (const auto axis : order) append(axis);
  for (const auto axis : MeshShape{}.order) {  // those left out have size 1; their place is free
    if (std::find(order.begin(), order.end(), axis) == order.end()) append(axis);
  }
  std::array<MeshDim, kNumMeshDims> result{};
  std::copy(dims.begin(), dims.end(), result.begin());
  return result;
}

/// The multiples of `product` below and above: "4, 8"; below the smallest one, that alone.
std::string nearest_multiples(int64_t number, int64_t product) {
  const int64_t below = number / product * product;
  return (below > 0 ? fmt::format("{}, ", below) : "") + fmt::format("{}", below + product);
}

}  // namespace

std::string to_string(MeshDims dims) {
  if (dims == kWorldGroup) return "world";
  std::string text;
  const auto append = [&](bool wanted, const char* part) {
    if (!wanted) return;
    if (!text.empty()) text += " x ";
    text += part;
  };
  const bool ulysses = dims.has(MeshDim::kUlysses), ring = dims.has(MeshDim::kRing);
  append(dims.has(MeshDim::kTensor), "tensor");
  append(dims.has(MeshDim::kData), "data");
  append(ulysses && ring, "context");
  append(ulysses && !ring, "ulysses");
  append(ring && !ulysses, "ring");
  append(dims.has(MeshDim::kPipeline), "pipeline");
  return text.empty() ? "self" : text;
}

void validate(const MeshShape& shape, int64_t world_size, Problems& problems) {
  const auto before = problems.messages().size();
  problems.check(
      shape.tensor >= 1 && shape.context >= 1 && shape.pipeline >= 1 && shape.ulysses >= 1,
      "parallel: sizes must be at least 1, got tensor ", shape.tensor, ", context ", shape.context,
      ", ulysses_degree ", shape.ulysses, ", pipeline ", shape.pipeline);
  if (problems.messages().size() > before) return;

  const int64_t product = shape.tensor * shape.context * shape.pipeline;
  const bool divides = world_size % product == 0;
  problems.check(divides, "parallel: world size ", world_size,
                 " is not divisible by tensor*context*pipeline = ", shape.tensor, "*",
                 shape.context, "*", shape.pipeline, " = ", product,
                 "; nearest world sizes: ", nearest_multiples(world_size, product));
  problems.check(shape.context % shape.ulysses == 0, "parallel: context ", shape.context,
                 " is not divisible by ulysses_degree ", shape.ulysses);

  const int64_t data = divides ? world_size / product : 1;
  const int64_t sizes[] = {shape.tensor, shape.context, data, shape.pipeline};
  for (const auto axis : MeshShape{}.order) {
    const auto times = std::count(shape.order.begin(), shape.order.end(), axis);
    const int64_t size = sizes[static_cast<size_t>(axis)];
    problems.check(times <= 1, "parallel.order names '", name(axis), "' ", times, " times");
    problems.check(times >= 1 || size == 1, "parallel.order leaves out '", name(axis),
                   "', whose size is ", size);
  }
}

Mesh::Mesh(int64_t world_size, const MeshShape& shape) : world_size_(world_size) {
  Problems problems;
  validate(shape, world_size, problems);
  problems.throw_if_any();

  const auto set = [this](MeshDim dim, int64_t size) { sizes_[static_cast<size_t>(dim)] = size; };
  set(MeshDim::kTensor, shape.tensor);
  set(MeshDim::kUlysses, shape.ulysses);
  set(MeshDim::kRing, shape.context / shape.ulysses);
  set(MeshDim::kPipeline, shape.pipeline);
  set(MeshDim::kData, world_size / (shape.tensor * shape.context * shape.pipeline));

  order_ = dims_in_order(shape.order);
  int64_t stride = 1;
  for (const auto dim : order_) {
    strides_[static_cast<size_t>(dim)] = stride;
    stride *= size(dim);
  }
}

int64_t Mesh::size(MeshDims dims) const {
  int64_t product = 1;
  for (const auto dim : order_) product *= dims.has(dim) ? size(dim) : 1;
  return product;
}

MeshCoordinates Mesh::coordinates(int64_t rank) const {
  require(rank >= 0 && rank < world_size_, "mesh: rank ", rank, " is outside the world of ",
          world_size_);
  MeshCoordinates coordinates;
  for (const auto dim : order_) {
    coordinates[dim] = rank / strides_[static_cast<size_t>(dim)] % size(dim);
  }
  return coordinates;
}

int64_t Mesh::rank(const MeshCoordinates& coordinates) const {
  int64_t rank = 0;
  for (const auto dim : order_) rank += coordinates[dim] * strides_[static_cast<size_t>(dim)];
  return rank;
}

std::vector<int64_t> Mesh::ranks(MeshDims dims, const MeshCoordinates& coordinates) const {
  auto base = coordinates;
  for (const auto dim : order_) {
    if (dims.has(dim)) base[dim] = 0;
  }
  std::vector<int64_t> ranks{rank(base)};
  for (const auto dim : order_) {  // slower dims repeat what the faster ones gave: stays ascending
    if (!dims.has(dim)) continue;
    const auto faster = ranks;
    for (int64_t i = 1; i < size(dim); ++i) {
      for (const auto r : faster) ranks.push_back(r + i * strides_[static_cast<size_t>(dim)]);
    }
  }
  return ranks;
}

std::vector<std::vector<int64_t>> Mesh::groups(MeshDims dims) const {
  std::vector<std::vector<int64_t>> groups;
  for (int64_t r = 0; r < world_size_; ++r) {
    auto members = ranks(dims, r);
    if (members.front() == r) groups.push_back(std::move(members));
  }
  return groups;
}

}  // namespace triptych
