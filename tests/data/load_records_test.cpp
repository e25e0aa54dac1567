#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "data/records.h"

namespace triptych {
namespace {

/// A conversation on one line: "role: text|<image a.png>|text / role!: ..." ('!' learned, '?' not).
std::string flat(const Conversation& conversation) {
  std::string out;
  for (const auto& message : conversation.messages) {
    out += (out.empty() ? "" : " / ") + message.role;
    if (message.learn) out += *message.learn ? "!" : "?";
    out += ":";
    for (const auto& part : message.parts) {
      if (part.kind == PartKind::kText) {
        out += " [" + part.text + "]";
        continue;
      }
      out += part.kind == PartKind::kImage ? " <image " : " <video ";
      out += part.media;
      for (const auto& frame : part.frames) out += frame + ";";
      out += ">";
    }
  }
  return out;
}

struct Good {
  const char* what;
  const char* record;
  const char* conversation;
  RecordFormat format = RecordFormat::kAuto;
  RecordNames names = {};
};
class GoodRecord : public testing::TestWithParam<Good> {};

TEST_P(GoodRecord, BecomesTheNormalForm) {
  const auto& row = GetParam();
  SCOPED_TRACE(row.what);
  const auto conversation = parse_record(row.record, "f:3", row.format, row.names);
  EXPECT_EQ(flat(conversation), row.conversation);
  EXPECT_EQ(conversation.origin, "f:3");
}

const Good kGood[] = {
    {"LLaVA", R"({"id": "r1", "image": "boats/04.jpg", "conversations": [
       {"from": "human", "value": "<image>\nHow many boats?"}, {"from": "gpt", "value": "Three."}]})",
     "user: <image boats/04.jpg> [\nHow many boats?] / assistant: [Three.]", RecordFormat::kLlava},
    {"LLaVA, found out", R"({"image": ["a.jpg", "b.jpg"], "conversations": [
       {"from": "human", "value": "<image><image>?"}, {"from": "gpt", "value": "x"}]})",
     "user: <image a.jpg> <image b.jpg> [?] / assistant: [x]"},
    {"LLaVA without a picture", R"({"conversations": [
       {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}], "image": null})",
     "user: [Hi] / assistant: [Ho]", RecordFormat::kLlava},
    {"LLaVA video", R"({"video": "v.mp4", "conversations": [
       {"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "x"}]})",
     "user: <video v.mp4> [\nWhat?] / assistant: [x]", RecordFormat::kLlava},
    {"ShareGPT by messages", R"({"messages": [
       {"role": "user", "content": "<image>Left or <image>right?"},
       {"role": "assistant", "content": "Left."}], "images": ["a.png", "b.png"]})",
     "user: <image a.png> [Left or ] <image b.png> [right?] / assistant: [Left.]",
     RecordFormat::kShareGpt},
    {"system column", R"({"system": "Be brief.", "conversations": [
       {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]})",
     "system: [Be brief.] / user: [Hi] / assistant: [Ho]"},
    {"system turn", R"({"conversations": [{"from": "system", "value": "S"},
       {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]})",
     "system: [S] / user: [Hi] / assistant: [Ho]"},
    {"observation and function call", R"r({"conversations": [{"from": "human", "value": "Hi"},
       {"from": "function_call", "value": "f()"}, {"from": "observation", "value": "1"},
       {"from": "gpt", "value": "One"}]})r",
     "user: [Hi] / assistant: [f()] / tool: [1] / assistant: [One]"},
    {"own names",
     R"({"talk": [{"who": "U", "what": "<image>Hi"}, {"who": "A", "what": "Ho"}],
       "pictures": ["p.png"], "sys": "S"})",
     "system: [S] / user: <image p.png> [Hi] / assistant: [Ho]",
     RecordFormat::kShareGpt,
     {.messages = "talk",
      .role = "who",
      .content = "what",
      .user = "U",
      .assistant = "A",
      .system = "sys",
      .images = "pictures"}},
    {"pairs", R"({"conversation": [{"human": "1?", "assistant": "1"}, {"human": "2?",
       "assistant": "2"}]})",
     "user: [1?] / assistant: [1] / user: [2?] / assistant: [2]"},
    {"OpenAI parts", R"({"messages": [{"role": "system", "content": "Short."},
       {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "cups.png"}},
       {"type": "text", "text": "Colour of <image>?"}]}, {"role": "assistant", "content": "Blue."}]})",
     "system: [Short.] / user: <image cups.png> [Colour of <image>?] / assistant: [Blue.]",
     RecordFormat::kMessages},
    {"image_url as a string, file://", R"({"messages": [{"role": "user", "content": [
       {"type": "image_url", "image_url": "file:///a/b.png"}, {"type": "video", "video": "v.mp4"}]},
       {"role": "assistant", "content": "x"}]})",
     "user: <image /a/b.png> <video v.mp4> / assistant: [x]"},
    {"data: URI", R"({"messages": [{"role": "user", "content": [{"type": "image",
       "image": "data:image/png;base64,AAAA"}]}, {"role": "assistant", "content": "x"}]})",
     "user: <image data:image/png;base64,AAAA> / assistant: [x]"},
    {"parts without a source take the column's", R"({"messages": [{"role": "user", "content": [
       {"type": "text", "text": "a"}, {"type": "image"}, {"type": "image"}]},
       {"role": "assistant", "content": [{"type": "text", "text": "x"}]}], "images": ["1", "2"]})",
     "user: [a] <image 1> <image 2> / assistant: [x]"},
    {"ms-swift: tags, loss", R"({"messages": [{"role": "user", "content": "<video>What moves?"},
       {"role": "assistant", "content": "A kite.", "loss": true}, {"role": "assistant",
       "content": "Or two.", "loss": false}], "videos": ["kite.mp4"]})",
     "user: <video kite.mp4> [What moves?] / assistant!: [A kite.] / assistant?: [Or two.]"},
    {"media without tags", R"({"messages": [{"role": "system", "content": "S"},
       {"role": "user", "content": "What?"}, {"role": "assistant", "content": "x"}],
       "images": ["a", "b"], "videos": ["v"]})",
     "system: [S] / user: <image a> <image b> <video v> [What?] / assistant: [x]"},
    {"video as frames", R"({"messages": [{"role": "user", "content": "<video>"},
       {"role": "assistant", "content": "x"}], "videos": [["0.png", "1.png"]]})",
     "user: <video 0.png;1.png;> / assistant: [x]"},
    {"query and response", R"({"query": "Q", "response": "A", "history": [["q", "a"]],
       "system": "S", "images": ["i"]})",
     "system: [S] / user: <image i> [q] / assistant: [a] / user: [Q] / assistant: [A]"},
    {"alpaca", R"({"instruction": "Add", "input": "1 2", "output": "3"})",
     "user: [Add\n1 2] / assistant: [3]"},
    {"alpaca without input", R"({"instruction": "Add", "input": "", "output": "3"})",
     "user: [Add] / assistant: [3]"},
};
INSTANTIATE_TEST_SUITE_P(Formats, GoodRecord, testing::ValuesIn(kGood));

struct Bad {
  const char* record;
  const char* message;
  RecordFormat format = RecordFormat::kAuto;
};
class BadRecord : public testing::TestWithParam<Bad> {};

TEST_P(BadRecord, NamesPlaceFieldFoundAndExpected) {
  const auto& row = GetParam();
  try {
    const auto conversation = parse_record(row.record, "f:3", row.format);
    FAIL() << "accepted: " << flat(conversation);
  } catch (const DataError& error) {
    EXPECT_STREQ(error.what(), row.message) << row.record;
  }
}

const Bad kBad[] = {
    {"[1]", "f:3: found a list; expected an object"},
    {"{}",
     "f:3: found an empty object; expected 'messages', 'conversations', 'conversation', 'query' "
     "with 'response', or 'instruction' with 'output'"},
    {R"({"text": "a", "id": 1})",
     "f:3: found the keys \"text\", \"id\"; expected 'messages', 'conversations', 'conversation', "
     "'query' with 'response', or 'instruction' with 'output'"},
    {R"({"messages": []})", "f:3: found the keys \"messages\"; expected 'conversations'",
     RecordFormat::kLlava},
    {R"({"messages": []})", "f:3: messages: found an empty list; expected a list of turns"},
    {R"({"messages": [3]})", "f:3: messages[0]: found 3; expected an object"},
    {R"({"messages": [{"content": "a"}]})",
     "f:3: messages[0].from: found nothing; expected a role; a turn has 'role' and 'content', or "
     "'from' and 'value'"},
    {R"({"messages": [{"role": "robot", "content": "a"}]})",
     "f:3: messages[0].role: found \"robot\"; expected user (human), assistant (gpt), system or "
     "tool (observation)"},
    {R"({"messages": [{"role": "user", "content": 7}]})",
     "f:3: messages[0].content: found 7; expected a string, or a list of parts"},
    {R"({"messages": [{"role": "user", "content": null}]})",
     "f:3: messages[0].content: found nothing; expected a string, or a list of parts"},
    {R"({"messages": [{"role": "user", "content": [{"type": "audio"}]}]})",
     "f:3: messages[0].content[0].type: found \"audio\"; expected text, image, image_url or video"},
    {R"({"messages": [{"role": "user", "content": "a"}]})",
     "f:3: turn 1, the last: found user; expected assistant"},
    {R"({"messages": [{"role": "assistant", "content": "a"}], "system": "s"})",
     "f:3: turn 1: found assistant; expected user"},
    {R"({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]})",
     "f:3: turn 2: found user; expected assistant"},
    {R"({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"},
        {"from": "gpt", "value": "c"}]})",
     "f:3: turn 3: found assistant; expected user"},
    {R"({"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]})",
     "f:3: turn 2: found system; expected a system turn only as the first, once"},
    {R"({"system": "s", "messages": [{"role": "system", "content": "b"},
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}]})",
     "f:3: turn 1: found system beside a system column; expected a system turn only as the first, "
     "once"},
    {R"({"messages": [{"role": "tool", "content": "a"}, {"role": "assistant", "content": "b"}]})",
     "f:3: turn 1: found tool; expected user"},
    {R"({"messages": [{"role": "user", "content": "<image><image>"},
        {"role": "assistant", "content": "b"}], "images": ["a"]})",
     "f:3: images: found 1 picture for 2 <image> tags; expected as many as tags"},
    {R"({"messages": [{"role": "user", "content": "<image>"},
        {"role": "assistant", "content": "b"}], "images": ["a", "b"]})",
     "f:3: images: found 2 pictures for 1 <image> tag; expected as many as tags"},
    {R"({"image": "a", "conversations": [{"from": "human", "value": "no tag"},
        {"from": "gpt", "value": "b"}]})",
     "f:3: image: found 1 picture for 0 <image> tags; expected as many as tags"},
    {R"({"messages": [{"role": "user", "content": "<video>"}, {"role": "assistant",
        "content": "b"}]})",
     "f:3: videos: found 0 videos for 1 <video> tag; expected as many as tags"},
    {R"({"image": "a", "images": ["b"], "messages": []})",
     "f:3: images: found a list; expected nothing: 'image' has media already"},
    {R"({"images": [5], "messages": []})", "f:3: images[0]: found 5; expected a string"},
    {R"({"images": ["http://x/y.png"], "messages": []})",
     "f:3: images[0]: found \"http://x/y.png\"; expected a file: nothing is fetched from the "
     "network; download it first"},
    {R"({"images": [{"bytes": "x"}], "messages": []})",
     "f:3: images[0]: found an object; expected a path, or an object with 'url' or 'path'"},
    {R"({"images": ["data:image/png,abc"], "messages": []})",
     "f:3: images[0]: found \"data:image/png,abc\"; expected data:...;base64,..."},
    {R"({"tools": [{"name": "f"}], "messages": []})",
     "f:3: tools: found a list; expected no such column: the models here take text, images and "
     "videos"},
    {R"({"messages": [{"role": "user", "content": "a", "loss": true}]})",
     "f:3: messages[0].loss: found true; expected false on a turn of this role"},
    {R"({"query": "a"})", "f:3: response: found nothing; expected a string"},
    {R"({"query": "a", "response": "b", "history": [["c"]]})",
     "f:3: history[0]: found a list; expected [question, answer]"},
    {R"({"instruction": 1, "output": "b"})", "f:3: instruction: found 1; expected a string"},
    {R"({"conversation": [{"human": "a"}]})",
     "f:3: conversation[0].assistant: found nothing; expected a string"},
    {"{\"messages\": [{\"role\": \"user\\u0007\\n\", \"content\": \"a\"}]}",
     "f:3: messages[0].role: found \"user\\u0007\\n\"; expected user (human), assistant (gpt), "
     "system or tool (observation)"},
};
INSTANTIATE_TEST_SUITE_P(Rows, BadRecord, testing::ValuesIn(kBad));

TEST(Records, JsonMistakesNameThePlace) {
  EXPECT_THAT([] { parse_record("{\"messages\": [", "f:3"); },
              testing::ThrowsMessage<DataError>(testing::StartsWith("f:3:1:")));
  EXPECT_THAT([] { parse_record("{\"id\": 1, \"id\": 2}", "f:3"); },
              testing::ThrowsMessage<DataError>(testing::HasSubstr("'id' occurs twice")));
}

TEST(Records, FormatNamesTheAllowedWords) {
  EXPECT_EQ(parse_record_format("llava"), RecordFormat::kLlava);
  EXPECT_THAT([] { parse_record_format("lava"); },
              testing::ThrowsMessage<UsageError>(testing::HasSubstr("auto, llava, sharegpt")));
}

}  // namespace
}  // namespace triptych
