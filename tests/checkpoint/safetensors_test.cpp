#include "checkpoint/safetensors.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/hash.h"
#include "support/scratch.h"

namespace triptych {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr at::ScalarType kTypes[] = {
    at::kBool,   at::kByte,   at::kChar,   at::kShort,       at::kInt,           at::kLong,
    at::kHalf,   at::kFloat,  at::kDouble, at::kBFloat16,    at::kFloat8_e4m3fn, at::kFloat8_e5m2,
    at::kUInt16, at::kUInt32, at::kUInt64, at::kComplexFloat};

at::Tensor random(at::IntArrayRef shape, at::ScalarType type) {
  if (type == at::kComplexFloat) return at::randn(shape, at::dtype(type));
  return at::randint(0, 2, shape, at::kFloat).mul(at::randint(0, 100, shape)).to(type);
}

TEST(Safetensors, EveryDtypeAndShapeComesBack) {
  const Scratch scratch;
  at::manual_seed(0);
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto type : kTypes) {
    for (const std::vector<int64_t>& shape : {std::vector<int64_t>{}, {0, 3}, {5}, {3, 1, 7}}) {
      tensors.emplace_back(detail::join_parts("t.", type, shape.size()), random(shape, type));
    }
  }
  const auto digest =
      save_safetensors(scratch / "a.safetensors", tensors, {{"format", "pt"}, {"k", "v"}});
  const auto disk = digest_of_file(scratch / "a.safetensors");
  EXPECT_EQ(disk.bytes, digest.bytes);
  EXPECT_EQ(disk.xxh3, digest.xxh3);
  const auto file = SafetensorsFile::open(scratch / "a.safetensors");
  EXPECT_EQ(file->header().metadata.at(1).second, "v");
  for (const auto& [name, tensor] : tensors) {
    for (const auto& got : {file->read(name), file->view(name)}) {
      EXPECT_EQ(got.scalar_type(), tensor.scalar_type()) << name;
      EXPECT_EQ(got.sizes(), tensor.sizes()) << name;
      EXPECT_TRUE(got.view({-1}).view(at::kByte).equal(tensor.view({-1}).view(at::kByte))) << name;
    }
  }
}

TEST(Safetensors, TheSameTensorsGiveTheSameBytes) {
  const Scratch scratch;
  const auto a = at::arange(7, at::kFloat), b = at::arange(4, at::kLong);
  const auto first = save_safetensors(scratch / "1", {{"a", a}, {"b", b}});
  const auto second = save_safetensors(scratch / "2", {{"a", a}, {"b", b}});
  EXPECT_EQ(first.xxh3, second.xxh3);
}

TEST(Safetensors, AViewOutlivesItsFileAndWritesNothing) {
  const Scratch scratch;
  save_safetensors(scratch / "a", {{"x", at::ones({1000})}});
  at::Tensor view;
  {
    const auto file = SafetensorsFile::open(scratch / "a");
    view = file->view("x");
  }
  view.fill_(3);
  EXPECT_EQ(view.sum().item<float>(), 3000);
  EXPECT_EQ(SafetensorsFile::open(scratch / "a")->read("x").sum().item<float>(), 1000);
}

TEST(Safetensors, MisalignedDataComesBack) {
  const Scratch scratch;
  const auto odd = at::ones({3}, at::kBool), x = at::arange(5, at::kDouble);
  save_safetensors(scratch / "a", {{"odd", odd}, {"x", x}});
  const auto file = SafetensorsFile::open(scratch / "a");
  EXPECT_TRUE(file->view("x").equal(x));
  EXPECT_TRUE(file->read("x", at::kFloat).equal(x.to(at::kFloat)));
}

struct SliceCase {
  std::vector<int64_t> shape;
  TensorSlice slice;
};
class Slices : public testing::TestWithParam<SliceCase> {};

TEST_P(Slices, EqualNarrow) {
  const auto& [shape, slice] = GetParam();
  const Scratch scratch;
  at::manual_seed(1);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const auto x = at::randn(shape).to(type);
    save_safetensors(scratch / "a", {{"front", at::ones({3}, at::kHalf)}, {"x", x}});
    const auto file = SafetensorsFile::open(scratch / "a");
    const auto want = x.narrow(slice.dim, slice.start, slice.length);
    EXPECT_TRUE(file->read("x", {}, slice).equal(want));
    EXPECT_TRUE(file->read("x", at::kFloat, slice).equal(want.to(at::kFloat)));
    const auto strided =
        at::zeros(want.sizes(), at::kDouble).transpose(0, -1).contiguous().transpose(0, -1);
    file->read_into("x", strided, slice);
    EXPECT_TRUE(strided.equal(want.to(at::kDouble)));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Slices,
                         testing::Values(SliceCase{{6, 5}, {0, 2, 3}}, SliceCase{{6, 5}, {1, 1, 3}},
                                         SliceCase{{6, 5}, {1, 0, 5}}, SliceCase{{6, 5}, {0, 0, 0}},
                                         SliceCase{{7}, {0, 6, 1}}, SliceCase{{3, 4, 5}, {1, 1, 2}},
                                         SliceCase{{3, 4, 5}, {2, 4, 1}},
                                         SliceCase{{5, 70'000}, {1, 100, 66'000}},  // long runs
                                         SliceCase{{900, 3'000},
                                                   {1, 1'000, 1'500}},            // several groups
                                         SliceCase{{3, 1'500'000}, {0, 1, 2}}));  // several pieces

TEST(Safetensors, RangesEqualTheFlattenedTensor) {
  const Scratch scratch;
  const auto x = at::randn({40, 50});
  save_safetensors(scratch / "a", {{"x", x}});
  const auto file = SafetensorsFile::open(scratch / "a");
  for (const auto& [begin, count] : {std::pair{0, 2000}, {13, 100}, {1999, 1}, {5, 0}}) {
    const auto got = at::empty({count});
    file->read_range("x", begin, got);
    EXPECT_TRUE(got.equal(x.view({-1}).narrow(0, begin, count)));
  }
  EXPECT_THAT([&] { file->read_range("x", 1999, at::empty({2})); },
              ThrowsMessage<Error>(HasSubstr("'x' has 2000 elements, asked for are [1999, 2001)")));
}

TEST(Safetensors, FillsAParameterThatWantsGradients) {
  const Scratch scratch;
  save_safetensors(scratch / "a", {{"x", at::ones({2})}});
  const auto parameter = at::zeros({2}).requires_grad_();
  SafetensorsFile::open(scratch / "a")->read_into("x", parameter);
  EXPECT_TRUE(parameter.detach().equal(at::ones({2})));
  EXPECT_FALSE(parameter.grad_fn());
}

TEST(Safetensors, WriterConvertsAndGathersStridedTensors) {
  const Scratch scratch;
  const auto x = at::randn({300, 200});
  SafetensorsWriter writer(
      scratch / "a",
      make_safetensors_header({{.name = "half", .type = StoredType::kBF16, .shape = {300, 200}},
                               {.name = "turned", .type = StoredType::kF32, .shape = {200, 300}},
                               {.name = "scalar", .type = StoredType::kF32, .shape = {}}}));
  writer.write(x);
  writer.write(x.t());
  writer.write(at::scalar_tensor(2.5, at::kDouble));
  writer.finish();
  const auto file = SafetensorsFile::open(scratch / "a");
  EXPECT_TRUE(file->read("half").equal(x.to(at::kBFloat16)));
  EXPECT_TRUE(file->read("turned").equal(x.t()));
  EXPECT_EQ(file->read("scalar").item<float>(), 2.5);
}

TEST(SafetensorsErrors, NameFileTensorAndShapes) {
  const Scratch scratch;
  save_safetensors(scratch / "a", {{"x", at::ones({2, 3})}});
  const auto file = SafetensorsFile::open(scratch / "a");
  EXPECT_THAT([&] { file->read("y"); }, ThrowsMessage<DataError>(HasSubstr("has no tensor 'y'")));
  EXPECT_THAT(
      [&] { file->read_into("x", at::empty({3, 2})); },
      ThrowsMessage<DataError>(HasSubstr("tensor 'x' is [2, 3], the destination is [3, 2]")));
  EXPECT_THAT([&] { file->read("x", {}, TensorSlice{1, 2, 2}); },
              ThrowsMessage<Error>(HasSubstr("which has no slice [2, 4) of dim 1")));
  EXPECT_THAT([&] { SafetensorsFile::open(scratch / "none"); },
              ThrowsMessage<Error>(AllOf(HasSubstr("none"), HasSubstr("No such file"))));
  EXPECT_THROW(SafetensorsFile::open(scratch.path()), Error);
  std::filesystem::resize_file(scratch / "a", 90);
  EXPECT_THAT([&] { SafetensorsFile::open(scratch / "a"); },
              ThrowsMessage<DataError>(HasSubstr("the file has 90")));
  EXPECT_THAT([&] { file->read("x"); }, ThrowsMessage<DataError>(HasSubstr("while it was read")));
}

TEST(SafetensorsErrors, AnUnfinishedFileLeavesNothing) {
  const Scratch scratch;
  {
    SafetensorsWriter writer(scratch / "a", make_safetensors_header({{.name = "x", .shape = {2}}}));
    EXPECT_THAT([&] { writer.finish(); },
                ThrowsMessage<Error>(HasSubstr("1 of 1 tensors are not")));
    EXPECT_THAT([&] { writer.write(at::zeros({3})); },
                ThrowsMessage<Error>(HasSubstr("'x' is [3], the file's header says [2]")));
  }
  EXPECT_TRUE(std::filesystem::is_empty(scratch.path()));
}

}  // namespace
}  // namespace triptych
