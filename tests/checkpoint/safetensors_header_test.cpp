#include "checkpoint/safetensors_header.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include "base/error.h"
#include "base/files.h"
#include "support/paths.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace triptych {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using testing::ThrowsMessage;

std::string file_of(const std::string& header, size_t data_bytes) {
  std::string file(8, '\0');
  for (size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(header.size() >> 8 * i & 0xff);
  return file + header + std::string(data_bytes, '\1');
}

SafetensorsHeader parse(const std::string& file) {
  return parse_safetensors_header(file, static_cast<int64_t>(file.size()), "w.safetensors");
}

TEST(SafetensorsHeader, ReadsTensorsInTheOrderOfTheirData) {
  const auto header = parse(file_of(
      R"({"b":{"dtype":"F32","shape":[2,3],"data_offsets":[2,26]},"__metadata__":{"format":"pt"},)"
      R"("a":{"dtype":"BF16","shape":[],"data_offsets":[0,2]}}  )",
      26));
  ASSERT_EQ(header.tensors.size(), 2);
  EXPECT_EQ(header.tensors[0].name, "a");
  EXPECT_EQ(header.tensors[0].type, StoredType::kBF16);
  EXPECT_EQ(header.tensors[0].numel(), 1);
  EXPECT_THAT(header.tensors[1].shape, ElementsAre(2, 3));
  EXPECT_THAT(header.metadata, ElementsAre(Pair("format", "pt")));
  EXPECT_EQ(header.data_bytes(), 26);
}

TEST(SafetensorsHeader, WritesWhatItReads) {
  const auto header =
      make_safetensors_header({{.name = "x.\"y\"", .type = StoredType::kF16, .shape = {3}},
                               {.name = "e", .type = StoredType::kI64, .shape = {0, 7}},
                               {.name = "s", .type = StoredType::kBool, .shape = {}}});
  EXPECT_EQ(header.text.size() % 8, 0);
  EXPECT_EQ(header.data_bytes(), 7);
  const auto again = parse(file_of(header.text, 7));
  EXPECT_EQ(again.tensors[0].name, "x.\"y\"");
  EXPECT_EQ(again.text, header.text);
}

TEST(SafetensorsHeader, RefusesToWriteANameTwiceOrAnImpossibleShape) {
  const StoredTensor tensor{.name = "a", .type = StoredType::kF32, .shape = {1}};
  EXPECT_THAT([&] { make_safetensors_header({tensor, tensor}); },
              ThrowsMessage<Error>(HasSubstr("'a' is to be written twice")));
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{-1}, {int64_t{1} << 62, 4}}) {
    EXPECT_THAT([&] { make_safetensors_header({{.name = "a", .shape = shape}}); },
                ThrowsMessage<Error>(HasSubstr("'a' cannot have the shape")));
  }
}

struct Hostile {
  const char* what;
  std::string file;
  const char* message;
};

std::vector<Hostile> hostile_files() {
  const auto one = [](const std::string& body, size_t bytes = 8) {
    return file_of(
        "{\"good\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"bad\":" + body + "}",
        bytes);
  };
  return {
      {"empty file", "", "has 0 bytes"},
      {"short file", "abc", "has 3 bytes"},
      {"huge header", std::string(8, '\xff') + "{}", "at most 100000000 are allowed"},
      {"header past the end", file_of("{}", 0).substr(0, 9), "needs 10 bytes, the file has 9"},
      {"no brace", file_of("[1,2]", 0), "does not begin with '{'"},
      {"leading blank", file_of(" {}", 0), "does not begin with '{'"},
      {"not JSON", file_of("{\"a\":", 0), "not valid JSON at byte"},
      {"trailing text", file_of("{} x", 0), "not valid JSON at byte"},
      {"bad UTF-8", file_of("{\"\xff\xfe\":{}}", 0), "not valid JSON at byte"},
      {"name twice", one(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]},"good":{})"),
       "tensor 'good' occurs twice"},
      {"field twice", one(R"({"dtype":"F32","dtype":"F32"})"), "'bad' has the field 'dtype' twice"},
      {"unknown field", one(R"({"dtpe":"F32"})"), "'bad' has the field 'dtpe'; allowed are dtype"},
      {"missing field", one(R"({"dtype":"F32","shape":[1]})"), "'bad' has no data_offsets"},
      {"unknown dtype", one(R"({"dtype":"F4","shape":[1],"data_offsets":[4,8]})"),
       "'bad' has the dtype 'F4'; known are BOOL U8"},
      {"dtype no string", one(R"({"dtype":7})"), "'bad' holds a number at 'dtype'"},
      {"negative size", one(R"({"dtype":"F32","shape":[-1]})"), "'bad': shape holds the negative"},
      {"fraction", one(R"({"dtype":"F32","shape":[1.5]})"), "'bad' holds the number '1.5'"},
      {"too large a number", one(R"({"dtype":"F32","shape":[99999999999999999999]})"),
       "'bad' holds the number"},
      {"beyond int64", one(R"({"dtype":"F32","shape":[9223372036854775808]})"),
       "which no file can"},
      {"overflowing product",
       one(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[4,8]})"),
       "'bad': the shape [4294967296, 4294967296] overflows"},
      {"overflow hidden by a zero",
       one(R"({"dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[4,4]})", 4),
       "overflows 64 bits"},
      {"too many dims",
       one("{\"shape\":[" +
           [] {
             std::string s = "1";
             for (int i = 0; i < 64; ++i) s += ",1";
             return s;
           }() +
           "]}"),
       "'bad' has more than 64 dims"},
      {"nested list", one(R"({"shape":[[1]]})"), "'bad' holds a list at 'shape'"},
      {"deep nesting", one(std::string(100000, '[')), "'bad' holds a list"},
      {"object in tensor", one(R"({"shape":{}})"), "'bad' holds an object at 'shape'"},
      {"tensor no object", one("null"), "'bad' holds null"},
      {"one offset", one(R"({"dtype":"F32","shape":[1],"data_offsets":[4]})"),
       "has 1 numbers, 2 are"},
      {"three offsets", one(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8,9]})"),
       "more than 2 numbers"},
      {"end before begin", one(R"({"dtype":"F32","shape":[1],"data_offsets":[8,4]})"),
       "'bad' ends at byte 4, before it begins at 8"},
      {"wrong size", one(R"({"dtype":"F32","shape":[3],"data_offsets":[4,8]})"),
       "'bad' takes 4 bytes, F32 [3] needs 12"},
      {"overlap", one(R"({"dtype":"F32","shape":[1],"data_offsets":[2,6]})", 6),
       "'bad' begins at byte 2 of the data, inside 'good', which ends at 4"},
      {"hole", one(R"({"dtype":"F32","shape":[1],"data_offsets":[6,10]})", 10),
       "'bad' begins at byte 6 of the data and leaves a hole after 4"},
      {"truncated", one(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})", 7),
       "truncated: its header describes"},
      {"bytes behind", one(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})", 9),
       "1 bytes follow the last tensor"},
      {"metadata no strings", file_of(R"({"__metadata__":{"a":1}})", 0),
       "'__metadata__' holds a number"},
      {"metadata key twice", file_of(R"({"__metadata__":{"a":"","a":""}})", 0), "holds 'a' twice"},
      {"metadata twice", file_of(R"({"__metadata__":{},"__metadata__":{}})", 0),
       "holds '__metadata__' twice"},
  };
}

TEST(SafetensorsHeader, RefusesHostileFiles) {
  for (const auto& row : hostile_files()) {
    const auto message = AllOf(HasSubstr("w.safetensors: "), HasSubstr(row.message));
    EXPECT_THAT([&] { parse(row.file); }, ThrowsMessage<DataError>(message)) << row.what;
  }
}

TEST(SafetensorsHeader, ShowsHostileNamesShortAndWithoutControlCharacters) {
  const std::string name = std::string("\\u001b[31m") + std::string(5000, 'x');
  try {
    parse(file_of("{\"" + name + "\":null}", 0));
    FAIL();
  } catch (const DataError& error) {
    EXPECT_LT(std::string(error.what()).size(), 600);
    EXPECT_EQ(std::string(error.what()).find('\x1b'), std::string::npos);
  }
}

TEST(SafetensorsHeader, FuzzTargetAcceptsItsCorpusAndMutations) {
  int64_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(
           source_dir() + "/tests/fuzz/safetensors_header_corpus")) {
    std::string file = read_file(entry.path());
    const auto run = [&] {
      LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(file.data()), file.size());
      ++count;
    };
    run();
    for (size_t i = 0; i < std::min<size_t>(file.size(), 300); ++i) {
      for (const char flip : {'\x01', '\x10', '\x7f'}) {
        file[i] ^= flip;
        run();
        file[i] ^= flip;
      }
    }
  }
  EXPECT_GT(count, 1000);
}

}  // namespace
}  // namespace triptych
