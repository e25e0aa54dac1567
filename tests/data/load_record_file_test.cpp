#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "data/base64.h"
#include "data/dataset.h"
#include "data/record_file.h"

namespace triptych {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::vector<std::string> records_of(const std::string& text, std::string* problem = nullptr) {
  const auto index = index_records(text, "f");
  std::vector<std::string> found;
  for (const auto& span : index.spans) {
    found.push_back(std::to_string(span.line) + ":" + text.substr(span.begin, span.length));
  }
  if (problem != nullptr) {
    *problem = index.problem;
  } else {
    EXPECT_EQ(index.problem, "");
  }
  return found;
}

TEST(RecordIndex, Lines) {
  EXPECT_THAT(records_of("{\"a\":1}\n\n  {\"b\":2}  \r\n{\"c\":3}"),
              ElementsAre("1:{\"a\":1}", "3:{\"b\":2}", "4:{\"c\":3}"));
  EXPECT_THAT(records_of("\xEF\xBB\xBF{}\n{}\n"), ElementsAre("1:{}", "2:{}"));
  EXPECT_THAT(records_of(" \n\n"), ElementsAre());
}

TEST(RecordIndex, Arrays) {
  EXPECT_THAT(records_of("[\n{\"a\": [1, {\"x\": \"]},{\"}]},\n  {\"b\": \"\\\"]\\\\\"}\n]\n"),
              ElementsAre("2:{\"a\": [1, {\"x\": \"]},{\"}]}", "3:{\"b\": \"\\\"]\\\\\"}"));
  EXPECT_THAT(records_of("\n [ ] "), ElementsAre());
  EXPECT_THAT(records_of("[1, \"a,b\", null]"), ElementsAre("1:1", "1:\"a,b\"", "1:null"));
}

TEST(RecordIndex, SaysWhereAnArrayIsBroken) {
  const auto problem_of = [](const std::string& text) {
    std::string problem;
    records_of(text, &problem);
    return problem;
  };
  EXPECT_EQ(problem_of("[{},\n{\"a\": "),
            "f:2: the file ends inside record 2 (line 2); is it cut off?");
  EXPECT_EQ(problem_of("[{},\n{\"a\": \"x\\"),
            "f:2: the file ends inside a string of record 2 (line 2); is it cut off?");
  EXPECT_EQ(problem_of("[{},\n{}"),
            "f:2: the array has no end; expected ',' or ']' after record 2");
  EXPECT_EQ(problem_of("[{},\n]"), "f:2: found ']' where record 2 should begin");
  EXPECT_EQ(problem_of("[,{}]"), "f:1: found ',' where record 1 should begin");
  EXPECT_EQ(problem_of("[{}]\n\x07"), "f:2: found byte 0x07 after the end of the array");
  EXPECT_EQ(problem_of("[}"), "f:1: found '}' outside of any record");
  EXPECT_EQ(problem_of("["), "f:1: the array has no end; expected ']' after 0 records");
  EXPECT_EQ(problem_of("\x1F\x8Bxx"),
            "f: found gzip data; unpack it first; expected JSON or JSONL records");
  std::string problem;
  EXPECT_THAT(records_of("[{\"a\":1}, {\"b\"", &problem), ElementsAre("1:{\"a\":1}"));
}

class RecordFiles : public testing::Test {
 protected:
  RecordFiles() : folder_(testing::TempDir() + "load_record_files") {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_ / "media");
  }
  ~RecordFiles() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name) << text;
    return folder_ / name;
  }

  std::filesystem::path folder_;
};

TEST_F(RecordFiles, RefusesEmptyAndMissingOnes) {
  EXPECT_THAT([&] { RecordFile(write("e.jsonl", "\n"), "e.jsonl"); },
              ThrowsMessage<DataError>("e.jsonl: found no record; expected JSONL or a JSON array"));
  EXPECT_THAT([&] { RecordFile(folder_ / "none.jsonl"); }, ThrowsMessage<Error>(HasSubstr("none")));
}

TEST_F(RecordFiles, DatasetFindsMediaInItsFolderFirst) {
  write("media/a.png", "");
  write("b.png", "");
  write("a.png", "");
  const auto record = [](const std::string& image) {
    return "{\"image\": \"" + image +
           "\", \"conversations\": [{\"from\": \"human\", \"value\": "
           "\"<image>\"}, {\"from\": \"gpt\", \"value\": \"x\"}]}\n";
  };
  write("d.jsonl", record("a.png") + record("b.png") + "\n" + record("c.png") + "{\"a\": }\n");
  const Dataset dataset({{.path = "d.jsonl", .media = "media"}}, folder_);
  const auto media = [&](int64_t i) { return dataset.conversation({0, i}).media()[0]->media; };
  EXPECT_EQ(media(0), (folder_ / "media/a.png").string());
  EXPECT_EQ(media(1), (folder_ / "b.png").string());
  EXPECT_EQ(dataset.origin({0, 2}), "d.jsonl:4");
  EXPECT_THAT([&] { media(2); },
              ThrowsMessage<DataError>("d.jsonl:4: 'c.png' is missing; looked for " +
                                       (folder_ / "media/c.png").string() + " and " +
                                       (folder_ / "c.png").string()));
  EXPECT_THAT([&] { media(3); }, ThrowsMessage<DataError>(testing::StartsWith("d.jsonl:5:")));
}

TEST_F(RecordFiles, ArraysNameRecordAndLine) {
  write("d.json",
        "[\n {\"query\": \"a\", \"response\": \"b\"},\n\n {\"query\":\n 3}\n, {\n\"a\": }]");
  const Dataset dataset({{.path = "d.json"}}, folder_);
  EXPECT_EQ(dataset.size(), 3);
  EXPECT_THAT([&] { dataset.conversation({0, 1}); },
              ThrowsMessage<DataError>("d.json:4: record 2: query: found 3; expected a string"));
  EXPECT_THAT([&] { dataset.conversation({0, 2}); },
              ThrowsMessage<DataError>(testing::StartsWith("d.json:7:")));
}

TEST_F(RecordFiles, DatasetNeedsItsMediaFolder) {
  write("d.jsonl", "{}\n");
  EXPECT_THAT([&] { Dataset({{.path = "d.jsonl", .media = "nowhere"}}, folder_); },
              ThrowsMessage<DataError>(HasSubstr("nowhere: found no folder")));
}

TEST(Base64, Decodes) {
  const auto text = [](std::string_view base64) {
    const auto bytes = decode_base64(base64, "o");
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  EXPECT_EQ(text(""), "");
  EXPECT_EQ(text("Zg=="), "f");
  EXPECT_EQ(text("Zm8"), "fo");
  EXPECT_EQ(text("Zm9v\nYmFy"), "foobar");
  EXPECT_EQ(text("+/+/"), "\xFB\xFF\xBF");
  EXPECT_THAT([&] { text("Zm9v!"); }, ThrowsMessage<DataError>("o: wrong base64 at offset 4"));
  EXPECT_THAT([&] { text("Zm9vY"); }, ThrowsMessage<DataError>(HasSubstr("cut off")));
  EXPECT_THAT([&] { text("Zg==Zg"); }, ThrowsMessage<DataError>(HasSubstr("offset 4")));
}

}  // namespace
}  // namespace triptych
