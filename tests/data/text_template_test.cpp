#include <gmock/gmock.h>

#include <ranges>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "data/sample.h"
#include "data/text/chat_template.h"
#include "data/text/own_template.h"
#include "support/scratch.h"
#include "tests/data/text_fixture.h"

namespace triptych {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::ThrowsMessage;
using Ids = std::vector<int32_t>;

Part text(std::string words) { return {.text = std::move(words)}; }
Part image() { return {.kind = PartKind::kImage, .media = "a.png"}; }
Part video() { return {.kind = PartKind::kVideo, .media = "a.mp4"}; }

Conversation talk(std::vector<Message> messages) {
  return {.messages = std::move(messages), .origin = "t.json:3"};
}
Message user(std::string words) { return {.role = "user", .parts = {text(std::move(words))}}; }
Message answer(std::string words) {
  return {.role = "assistant", .parts = {text(std::move(words))}};
}

const ChatTemplate& qwen() { return chat_template("qwen2_5_vl"); }

const Tokenizer& tokenizer() {
  static const Tokenizer small = small_tokenizer();
  return small;
}

/// The text of the tokens that carry a label.
std::string learned(const EncodedConversation& encoded) {
  Ids ids;
  for (size_t i = 0; i < encoded.tokens.size(); ++i) {
    if (encoded.labels[i] == kIgnoreLabel) continue;
    EXPECT_EQ(encoded.labels[i], encoded.tokens[i]);
    ids.push_back(encoded.tokens[i]);
  }
  return tokenizer().decode(ids);
}

EncodedConversation encode(const Conversation& conversation, const EncodeOptions& options = {},
                           const std::vector<int64_t>& media_tokens = {}) {
  auto encoded = encode_conversation(qwen(), tokenizer(), conversation, media_tokens, options);
  EXPECT_EQ(encoded.tokens.size(), encoded.labels.size());
  return encoded;
}

// ---- goldens of the hub's own template, rendered by Jinja2

struct Golden {
  Conversation conversation;
  RenderOptions options;
  std::vector<int64_t> media_tokens;
  std::string text;
  Ids ids;
};

std::vector<Golden> goldens() {
  const Json file = read_json(std::filesystem::path(TRIPTYCH_SOURCE_DIR) /
                              "tests/data/golden/chat_qwen2_5_vl.json");
  std::vector<Golden> all;
  for (const Json& row : file.at("cases")) {
    Golden golden;
    golden.conversation.origin = "golden " + std::to_string(all.size());
    for (const Json& m : row.at("messages")) {
      Message message{.role = m.at("role").get<std::string>()};
      const Json& content = m.at("content");
      const Json list = content.is_array() ? content : Json::array({content});
      for (const Json& part : list) {
        message.parts.push_back(part.is_string()             ? text(part.get<std::string>())
                                : part.at("type") == "image" ? image()
                                                             : video());
      }
      golden.conversation.messages.push_back(std::move(message));
    }
    golden.options.add_generation_prompt = row.value("add_generation_prompt", false);
    golden.options.add_vision_id = row.value("add_vision_id", false);
    golden.media_tokens = row.value("media_tokens", std::vector<int64_t>{});
    golden.text = row.at("text").get<std::string>();
    golden.ids = row.at("ids").get<Ids>();
    all.push_back(std::move(golden));
  }
  return all;
}

TEST(ChatTemplate, RendersAsTheHubsTemplate) {
  ASSERT_EQ(goldens().size(), 8);
  for (const auto& golden : goldens()) {
    EXPECT_EQ(render_text(qwen(), golden.conversation, golden.options), golden.text);
  }
}

TEST(ChatTemplate, TokenizesWholeAsTheHubsTokenizer) {
  if (!qwen_ranks()) GTEST_SKIP() << kNoRanks;
  const Tokenizer real = Tokenizer::from_rank_file(*qwen_ranks(), qwen2_5_added_tokens(151643));
  for (const auto& golden : goldens()) {
    const auto encoded =
        encode_conversation(qwen(), real, golden.conversation, golden.media_tokens,
                            {.render = golden.options, .label_tokens = LabelTokens::kWhole});
    EXPECT_EQ(encoded.tokens, golden.ids) << golden.text;
  }
}

TEST(ChatTemplate, ChatmlHasNoDefaultSystemTurnAndNoMedia) {
  const auto& chatml = chat_template("chatml");
  EXPECT_EQ(render_text(chatml, talk({user("a")})), "<|im_start|>user\na<|im_end|>\n");
  EXPECT_THAT([&] { render(chatml, talk({{.role = "user", .parts = {image()}}})); },
              ThrowsMessage<DataError>("t.json:3: message 1: the template chatml takes no pictures "
                                       "or videos"));
}

// ---- labels

struct Labels {
  Learn learn;
  std::optional<bool> first, second;  // wishes of the two answers
  std::string want;
};
class LearnedText : public testing::TestWithParam<Labels> {};

TEST_P(LearnedText, IsTheAnswersWithTheirEnds) {
  const auto& [learn, first, second, want] = GetParam();
  auto conversation = talk({user("How?"), answer("One."), user("Why?"), answer("Two.")});
  conversation.messages[1].learn = first;
  conversation.messages[3].learn = second;
  for (const auto mode : {LabelTokens::kSeparate, LabelTokens::kWhole}) {
    EXPECT_EQ(learned(encode(conversation, {.render = {.learn = learn}, .label_tokens = mode})),
              want);
  }
}

constexpr auto kUnset = std::nullopt;
INSTANTIATE_TEST_SUITE_P(
    Rows, LearnedText,
    testing::Values(
        Labels{Learn::kAssistant, kUnset, kUnset, "One.<|im_end|>\nTwo.<|im_end|>\n"},
        Labels{Learn::kLast, kUnset, kUnset, "Two.<|im_end|>\n"},
        Labels{Learn::kLast, true, kUnset, "One.<|im_end|>\nTwo.<|im_end|>\n"},
        Labels{Learn::kAssistant, false, kUnset, "Two.<|im_end|>\n"},
        Labels{Learn::kAssistant, false, false, ""},
        Labels{Learn::kAll, kUnset, kUnset,
               "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
               "<|im_start|>user\nHow?<|im_end|>\n<|im_start|>assistant\nOne.<|im_end|>\n"
               "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nTwo.<|im_end|>\n"}));

TEST(Labels, SeparateAndWholeDifferWhereAnAnswerBeginsWithALineBreak) {
  // Together the two line breaks are one piece; a merge for it makes them one token.
  std::vector<std::string> texts(4, "a\n\nb");
  const Scratch folder;
  save_tokenizer(train_bpe(texts, 300), folder.path());
  const Tokenizer joining = Tokenizer::from_folder(folder.path());
  ASSERT_EQ(joining.encode("\n\n").size(), 1);

  const auto conversation = talk({user("q"), answer("\nyes")});
  const auto run = [&](LabelTokens mode) {
    const auto encoded =
        encode_conversation(qwen(), joining, conversation, {}, {.label_tokens = mode});
    Ids ids;
    for (const int32_t label : encoded.labels) {
      if (label != kIgnoreLabel) ids.push_back(label);
    }
    EXPECT_EQ(joining.decode(encoded.tokens), render_text(qwen(), conversation));
    return joining.decode(ids);
  };
  EXPECT_EQ(run(LabelTokens::kSeparate), "\nyes<|im_end|>\n");
  EXPECT_EQ(run(LabelTokens::kWhole), "\n\nyes<|im_end|>\n") << "the token across the border";
}

TEST(Labels, AnswersEqualTheRenderedStringTurnByTurn) {
  const auto encoded = encode(talk({user("The picture?"), answer("A red square.")}));
  Ids want;
  for (const char* piece : {"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n",
                            "<|im_start|>user\nThe picture?<|im_end|>\n<|im_start|>assistant\n",
                            "A red square.<|im_end|>\n"}) {
    tokenizer().encode_to(piece, want);
  }
  EXPECT_EQ(encoded.tokens, want);
}

// ---- media

TEST(Media, PlaceholdersAreExpandedInOrder) {
  const auto conversation =
      talk({{.role = "user", .parts = {image(), text("and"), video()}}, answer("Yes.")});
  for (const auto mode : {LabelTokens::kSeparate, LabelTokens::kWhole}) {
    const auto encoded = encode(conversation, {.label_tokens = mode}, {3, 2});
    EXPECT_EQ(tokenizer().decode(encoded.tokens),
              "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
              "<|vision_start|><|image_pad|><|image_pad|><|image_pad|><|vision_end|>and"
              "<|vision_start|><|video_pad|><|video_pad|><|vision_end|><|im_end|>\n"
              "<|im_start|>assistant\nYes.<|im_end|>\n");
    EXPECT_EQ(std::ranges::count(encoded.tokens, tokenizer().require_id("<|image_pad|>")), 3);
    EXPECT_THAT(encoded.media, ElementsAre(0, 1));
    EXPECT_EQ(learned(encoded), "Yes.<|im_end|>\n");
  }
}

TEST(Media, GenerationPromptHasNoLabels) {
  const auto encoded =
      encode(talk({{.role = "user", .parts = {image(), text("?")}}}),
             {.render = {.add_generation_prompt = true}, .label_tokens = LabelTokens::kWhole}, {2});
  EXPECT_TRUE(tokenizer().decode(encoded.tokens).ends_with("<|im_start|>assistant\n"));
  EXPECT_THAT(encoded.labels, testing::Each(kIgnoreLabel));
}

TEST(MediaErrors, AreNamed) {
  const auto conversation = talk({{.role = "user", .parts = {image()}}, answer("a")});
  EXPECT_THAT([&] { encode(conversation); },
              ThrowsMessage<DataError>("t.json:3: 1 pictures and videos, but 0 token counts"));
  EXPECT_THAT([&] { encode(conversation, {}, {0}); },
              ThrowsMessage<DataError>(HasSubstr("medium 1 takes 0 tokens")));
  EXPECT_THAT([] { encode(talk({user("a <|image_pad|> b")})); },
              ThrowsMessage<DataError>(HasSubstr("message 1: the text spells '<|image_pad|>'")));
  EXPECT_THAT([] { encode(talk({})); },
              ThrowsMessage<DataError>(HasSubstr("t.json:3: there are no messages")));
}

// ---- too long

TEST(TooLong, IsAnErrorUnlessCuttingIsAllowed) {
  EXPECT_THAT([] { encode(talk({user("a"), answer("b")}), {.max_length = 5}); },
              ThrowsMessage<DataError>(HasSubstr("tokens, data.max_length is 5; raise it, or set "
                                                 "data.too_long = \"cut\"")));
}

/// Prompts and answers of given token counts: 'x' never merges with itself here.
Conversation sized(const std::vector<std::pair<int64_t, int64_t>>& pairs) {
  std::vector<Message> messages = {{.role = "system", .parts = {text("")}}};
  for (const auto& [prompt, reply] : pairs) {
    messages.push_back(user(std::string(static_cast<size_t>(prompt), '#')));
    messages.push_back(answer(std::string(static_cast<size_t>(reply), '#')));
  }
  return talk(messages);
}

struct Cut {
  Learn learn;
  int64_t prompt, reply;  // tokens of each of the two pairs, marks included
  int64_t limit;
  std::vector<int64_t> kept;  // prompt 1, answer 1, prompt 2, answer 2
};
class TooLongCut : public testing::TestWithParam<Cut> {};

TEST_P(TooLongCut, SharesTheBudgetAsLlamaFactory) {
  const auto& [learn, prompt, reply, limit, kept] = GetParam();
  const auto count = [](std::string_view words) {
    return static_cast<int64_t>(tokenizer().encode(words).size());
  };
  const int64_t system = count("<|im_start|>system\n<|im_end|>\n");
  const int64_t marks = count("<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n");
  const int64_t end = count("<|im_end|>\n");
  const auto conversation =
      sized({{prompt - marks - system, reply - end}, {prompt - marks, reply - end}});
  const auto whole = encode(conversation);
  ASSERT_EQ(static_cast<int64_t>(whole.tokens.size()), 2 * (prompt + reply));
  const auto encoded = encode(
      conversation, {.render = {.learn = learn}, .max_length = limit, .too_long = TooLong::kCut});
  EXPECT_TRUE(encoded.cut);
  Ids want;
  int64_t at = 0;
  for (size_t i = 0; i < 4; ++i) {
    want.insert(want.end(), whole.tokens.begin() + at, whole.tokens.begin() + at + kept[i]);
    at += i % 2 == 0 ? prompt : reply;
  }
  EXPECT_EQ(encoded.tokens, want);
}

// Kept counts computed by the rule in LLaMA-Factory 0.9.4 (infer_seqlen), pair by pair.
INSTANTIATE_TEST_SUITE_P(
    Rows, TooLongCut,
    testing::Values(Cut{Learn::kAssistant, 60, 20, 100, {60, 20, 15, 5}},  // 2*20 >= 20: shared
                    Cut{Learn::kAssistant, 100, 20, 70, {50, 20, 0, 0}},   // answer kept whole
                    Cut{Learn::kAssistant, 30, 100, 90, {30, 60, 0, 0}},   // answer cut
                    Cut{Learn::kAssistant, 60, 60, 100, {50, 50, 0, 0}},   // both
                    Cut{Learn::kLast, 60, 20, 100, {15, 5, 60, 20}}));

TEST(TooLongMedia, StayWithTheirAnswer) {
  const std::vector<Message> messages = {
      {.role = "system", .parts = {text("")}},
      {.role = "user", .parts = {image(), text(std::string(40, '#')), image(), text("###")}},
      answer("ok")};
  const auto conversation = talk(messages);
  const auto whole = encode(conversation, {}, {4, 8});
  const auto length = static_cast<int64_t>(whole.tokens.size());
  const auto second = std::ranges::find(whole.tokens | std::views::drop(30),
                                        tokenizer().require_id("<|vision_start|>"));
  const auto reply = static_cast<int64_t>(tokenizer().encode("ok<|im_end|>\n").size());
  const int64_t start = second - whole.tokens.begin();
  const auto cut_prompt_to = [&](int64_t prompt) {
    return encode(conversation, {.max_length = prompt + reply, .too_long = TooLong::kCut}, {4, 8});
  };
  EXPECT_THAT(whole.media, ElementsAre(0, 1));
  EXPECT_THAT(cut_prompt_to(start + 10).media, ElementsAre(0, 1)) << "8 placeholders, two marks";
  EXPECT_LT(start + 10 + reply, length);
  for (const int64_t kept : {0, 1, 2, 9}) {  // before it or inside it
    EXPECT_THAT([&] { cut_prompt_to(start + kept); },
                ThrowsMessage<DataError>(HasSubstr("would cut picture or video 2")));
  }
}

TEST(TooLongMedia, GoWithATurnThatIsCutAway) {
  std::vector<Message> messages = {{.role = "system", .parts = {text("")}},
                                   {.role = "user", .parts = {image(), text("?")}},
                                   answer("ok")};
  const auto first = static_cast<int64_t>(encode(talk(messages), {}, {4}).tokens.size());
  messages.push_back({.role = "user", .parts = {image(), text("?")}});
  messages.push_back(answer("ok"));
  const auto cut = encode(talk(messages), {.max_length = first, .too_long = TooLong::kCut}, {4, 8});
  EXPECT_THAT(cut.media, ElementsAre(0));
  EXPECT_EQ(cut.tokens.size(), first);
}

// ---- which template

TEST(SelectTemplate, NamesWinThenTheFolderThenTheFamily) {
  const Scratch folder;
  const auto select = [&](std::string_view setting) {
    return select_chat_template(setting, folder.path(), "qwen2_5_vl").name;
  };
  EXPECT_EQ(select("auto"), "qwen2_5_vl");
  EXPECT_EQ(select("chatml"), "chatml");
  write_file_atomically(folder.path() / "tokenizer_config.json",
                        R"({"chat_template": [{"name": "default", "template": "{{ x }}"}]})");
  EXPECT_EQ(folder_chat_template(folder.path()), "{{ x }}");
  EXPECT_THAT([&] { select("auto"); },
              ThrowsMessage<UsageError>(HasSubstr("data.template = \"qwen2_5_vl\"")));
  EXPECT_EQ(select("chatml"), "chatml");
  write_file_atomically(folder.path() / "chat_template.json", R"({"chat_template": "{{ y }}"})");
  EXPECT_EQ(folder_chat_template(folder.path()), "{{ y }}");
  write_file_atomically(folder.path() / "chat_template.jinja", "{{ z }}\n");
  EXPECT_EQ(folder_chat_template(folder.path()), "{{ z }}\n");
  write_file_atomically(folder.path() / "chat_template.jinja", qwen2_5_vl_jinja());
  EXPECT_EQ(select("auto"), "qwen2_5_vl");
  EXPECT_THAT([&] { select("vicuna"); },
              ThrowsMessage<UsageError>(HasSubstr("known: qwen2_5_vl, chatml")));
}

TEST(Options, WordsOfTheRunFile) {
  EXPECT_EQ(parse_learn("last"), Learn::kLast);
  EXPECT_EQ(parse_label_tokens("whole"), LabelTokens::kWhole);
  EXPECT_EQ(parse_too_long("cut"), TooLong::kCut);
  EXPECT_THAT([] { parse_learn("first"); },
              ThrowsMessage<UsageError>(
                  "data.learn = 'first' is not a choice; allowed: assistant, last, all"));
}

}  // namespace
}  // namespace triptych
