#include <gmock/gmock.h>

#include <chrono>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "data/text/bpe.h"
#include "data/text/byte_alphabet.h"
#include "data/text/piece_pattern.h"
#include "support/scratch.h"
#include "tests/data/text_fixture.h"

namespace triptych {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::ThrowsMessage;
using Ids = std::vector<int32_t>;

// ---- Qwen's real vocabulary

struct Vector {
  std::string text;
  Ids ids;
};
class RealVocabulary : public testing::TestWithParam<Vector> {
 protected:
  static const Tokenizer& tokenizer() {
    static const Tokenizer real =
        Tokenizer::from_rank_file(*qwen_ranks(), qwen2_5_added_tokens(151643));
    return real;
  }
};

TEST_P(RealVocabulary, GivesTheReferencesIds) {
  if (!qwen_ranks()) GTEST_SKIP() << kNoRanks;
  const auto& [text, ids] = GetParam();
  EXPECT_EQ(tokenizer().encode(text), ids);
  EXPECT_EQ(tokenizer().decode(ids), tokenizer().normalize(text));
}

INSTANTIATE_TEST_SUITE_P(
    Vectors, RealVocabulary,
    testing::Values(
        Vector{"Hello world", {9707, 1879}},
        Vector{"It's I'LL we've", {2132, 594, 358, 6, 4086, 582, 3003}},
        Vector{" 12 345", {220, 16, 17, 220, 18, 19, 20}},
        Vector{"a\r\n\r\n b  c", {64, 871, 293, 220, 272}},
        Vector{"naïve e\u0301 你好！", {3376, 37572, 586, 3958, 220, 108386, 6313}},
        Vector{"\u00A0\u3000tab\tend ", {4102, 22441, 6192, 6246, 220}},
        Vector{"🙂👍🏽", {145080, 144349, 145375}},
        Vector{"Describe this image.", {74785, 419, 2168, 13}},
        Vector{"中文分词测试。", {104811, 17177, 99689, 81705, 1773}},
        Vector{
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
            {151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198, 151644, 872, 198}}));

TEST_F(RealVocabulary, HasTheHubsSizeAndMarks) {
  if (!qwen_ranks()) GTEST_SKIP() << kNoRanks;
  EXPECT_EQ(tokenizer().size(), 151665);
  EXPECT_EQ(tokenizer().require_id("<|image_pad|>"), 151655);
  EXPECT_EQ(tokenizer().id_of(" world"), 1879);
  EXPECT_TRUE(tokenizer().is_special(151645));
  EXPECT_FALSE(tokenizer().is_special(151657));  // <tool_call>
}

// ---- merging

/// One pass per merge over the whole piece: the definition.
Ids merged_slowly(const std::map<std::pair<int32_t, int32_t>, std::pair<int, int32_t>>& joins,
                  Ids ids) {
  while (true) {
    int best = INT32_MAX;
    size_t at = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = joins.find({ids[i], ids[i + 1]});
      if (found != joins.end() && found->second.first < best) best = found->second.first, at = i;
    }
    if (best == INT32_MAX) return ids;
    ids[at] = joins.at({ids[at], ids[at + 1]}).second;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

TEST(Bpe, AgreesWithTheDefinitionOnRandomVocabularies) {
  std::mt19937 random(0);
  for (int round = 0; round < 20; ++round) {
    std::vector<std::string> pieces = {"a", "b", "c"};
    std::vector<Bpe::Merge> merges;
    std::map<std::pair<int32_t, int32_t>, std::pair<int, int32_t>> joins;
    for (int i = 0; i < 60; ++i) {
      const auto left = static_cast<int32_t>(random() % pieces.size());
      const auto right = static_cast<int32_t>(random() % pieces.size());
      const std::string joined = pieces[left] + pieces[right];
      if (joined.size() > 12 || std::ranges::count(pieces, joined) > 0) continue;
      merges.push_back({left, right, static_cast<int32_t>(pieces.size())});
      pieces.push_back(joined);
    }
    std::ranges::shuffle(merges, random);  // ranks that no trainer would give
    for (size_t rank = 0; rank < merges.size(); ++rank) {
      joins[{merges[rank].left, merges[rank].right}] = {static_cast<int>(rank),
                                                        merges[rank].result};
    }
    const Bpe bpe(pieces, merges, false);
    PieceCache cache;
    for (const size_t length : {1, 2, 3, 7, 31, 32, 33, 96, 97, 400}) {
      std::string text;
      Ids symbols;
      for (size_t i = 0; i < length; ++i) {
        symbols.push_back(static_cast<int32_t>(random() % 3));
        text.push_back("abc"[symbols.back()]);
      }
      const Ids want = merged_slowly(joins, symbols);
      Ids got, first, again;
      bpe.encode(text, got);
      EXPECT_EQ(got, want) << text;
      cache.encode(bpe, text, text.size(), first);
      cache.encode(bpe, text, text.size(), again);
      EXPECT_EQ(first, want);
      EXPECT_EQ(again, want) << "from the cache";
    }
  }
}

TEST(Bpe, CacheTellsPiecesOfManyLengthsApart) {
  const TrainedBpe trained = train_bpe(training_texts(), 300);
  std::vector<Bpe::Merge> merges;
  for (const auto& [left, right] : trained.merges) {
    merges.push_back({left, right, static_cast<int32_t>(256 + merges.size())});
  }
  const Bpe bpe(trained.pieces, merges, false);
  PieceCache cache;
  // What lies behind the piece must not matter, and neither what was seen before.
  for (const std::string behind : {"", "x", "picturepicturepicturepicturepicture"}) {
    for (const char letter : {'s', '\0', '\xFF'}) {
      for (size_t n = 1; n < 40; ++n) {
        const std::string text = std::string(n, letter) + behind;
        const std::string_view piece = std::string_view(text).substr(0, n);
        Ids want, got;
        bpe.encode(piece, want);
        cache.encode(bpe, piece, text.size(), got);
        ASSERT_EQ(got, want) << n << " times " << int{letter};
      }
    }
  }
}

TEST(Tokenizer, OnePieceOfAMegabyteIsNotQuadratic) {
  const Tokenizer tokenizer = small_tokenizer();
  std::string text;
  while (text.size() < (1u << 20)) text += "squarepicture";
  const auto begin = std::chrono::steady_clock::now();
  const Ids ids = tokenizer.encode(text);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  EXPECT_EQ(tokenizer.decode(ids), text);
  EXPECT_LT(ids.size(), text.size() / 2);
}

// ---- files

/// A tokenizer.json over the 256 bytes, "ab" and "abc", to be changed by tests.
Json small_json() {
  Json vocab = Json::object();
  int id = 0;
  for (const uint8_t byte : bytes_in_alphabet_order()) {
    vocab[to_byte_alphabet(std::string(1, static_cast<char>(byte)))] = id++;
  }
  vocab["ab"] = 256;
  vocab["abc"] = 257;
  const Json level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  const Json split = {{"type", "Split"},
                      {"pattern", {{"Regex", PiecePattern::regex_of(PiecePattern::Kind::kQwen2)}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  return {{"added_tokens", Json::array()},
          {"normalizer", {{"type", "NFC"}}},
          {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", Json::array({split, level})}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array({"a b", "ab c"})}}}};
}

Tokenizer load(const Json& json) { return Tokenizer::from_json(dump_json(json), "t.json"); }

Json added(int id, std::string content, Json flags = Json::object()) {
  Json token = {{"id", id}, {"content", std::move(content)}};
  token.update(flags);
  return token;
}

TEST(TokenizerJson, MergesAreStringsOrPairs) {
  Json pairs = small_json();
  pairs["model"]["merges"] = Json::parse(R"([["a","b"],["ab","c"]])");
  for (const Json& json : {small_json(), pairs}) {
    EXPECT_THAT(load(json).encode("abcab"), ElementsAre(257, 256));
  }
}

TEST(TokenizerJson, IgnoreMergesTakesWholePieces) {
  Json json = small_json();
  json["model"]["vocab"]["xyz"] = 258;  // no merge leads there
  EXPECT_EQ(load(json).encode("xyz").size(), 3);
  json["model"]["ignore_merges"] = true;
  EXPECT_THAT(load(json).encode("xyz"), ElementsAre(258));
}

TEST(TokenizerJson, PrefixSpaceOfGpt2) {
  Json json = small_json();
  json["normalizer"] = nullptr;
  json["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}};
  json["added_tokens"] = Json::array({added(300, "<x>")});
  const Tokenizer tokenizer = load(json);
  const int32_t space = *tokenizer.id_of(" ");
  EXPECT_THAT(tokenizer.encode("abc<x>ab ab"),
              ElementsAre(space, 257, 300, space, 256, space, 256));
  EXPECT_THAT(tokenizer.encode(" ab"), ElementsAre(space, 256));
}

TEST(TokenizerJson, AddedTokens) {
  Json json = small_json();
  json["added_tokens"] = Json::array(
      {added(300, "<a>"), added(301, "<a><b>"), added(302, "[L]", {{"lstrip", true}}),
       added(303, "[R]", {{"rstrip", true}}), added(304, "\u00E9!", {{"normalized", true}}),
       added(305, "e\u0301?", {{"normalized", false}, {"special", true}})});
  const Tokenizer tokenizer = load(json);
  const int32_t b = *tokenizer.id_of("b"), space = *tokenizer.id_of(" ");
  EXPECT_THAT(tokenizer.encode("<a><a><b>b"), ElementsAre(300, 301, b)) << "longest match";
  EXPECT_THAT(tokenizer.encode("b \n[L] b"), ElementsAre(b, 302, space, b));
  EXPECT_THAT(tokenizer.encode("b [R]\u3000 b"), ElementsAre(b, space, 303, b));
  EXPECT_THAT(tokenizer.encode("[R]  [L]"), ElementsAre(303, 302));
  EXPECT_THAT(tokenizer.encode("e\u0301!b"), ElementsAre(304, b)) << "found after NFC";
  EXPECT_THAT(tokenizer.encode("e\u0301?b"), ElementsAre(305, b)) << "found before NFC";
  EXPECT_THAT(tokenizer.encode("\u00E9?").size(), 3) << "another spelling is another text";
  EXPECT_EQ(tokenizer.size(), 306);
}

TEST(TokenizerJson, NoNormalizerKeepsWhatIsWritten) {
  Json json = small_json();
  EXPECT_EQ(load(json).decode(load(json).encode("e\u0301")), "\u00E9");
  json["normalizer"] = nullptr;
  EXPECT_EQ(load(json).decode(load(json).encode("e\u0301")), "e\u0301");
}

TEST(TokenizerJson, NfcIsThatOfTheReference) {
  const Tokenizer tokenizer = load(small_json());
  EXPECT_EQ(tokenizer.normalize("\u212B\u1E9B\u0323"), "\u00C5\u1E9B\u0323");
  EXPECT_EQ(tokenizer.normalize("\u1100\u1161\u11A8"), "\uAC01");
  // Composes since Unicode 13 only; combines since 14 only: the reference knows neither.
  EXPECT_EQ(tokenizer.normalize("\U00011935\U00011930"), "\U00011935\U00011930");
  EXPECT_EQ(tokenizer.normalize("a\u0345\u0898"), "a\u0345\u0898");
}

TEST(TokenizerJson, DecodingRepairsStreamsAndSkips) {
  Json json = small_json();
  json["added_tokens"] = Json::array({added(300, "<s>", {{"special", true}}), added(301, "<é>")});
  const Tokenizer tokenizer = load(json);
  const auto byte = [&](char c) { return *tokenizer.id_of(std::string(1, c)); };
  const Ids ids = {300, byte('\xE4'), byte('\xBD'), byte('\xA0'), 301, 9999, -1, byte('\xC3')};
  EXPECT_EQ(tokenizer.decode(ids), "<s>你<é>\uFFFD");
  EXPECT_EQ(tokenizer.decode(ids, {.skip_special_tokens = true}), "你<é>\uFFFD");
  StreamingDecoder stream(tokenizer);
  std::vector<std::string> parts;
  for (const int32_t id : ids) parts.push_back(stream.add(id));
  EXPECT_THAT(parts, ElementsAre("<s>", "", "", "你", "<é>", "", "", ""));
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "");
}

TEST(Tokenizer, FolderFormsAgree) {
  const Scratch folder;
  save_tokenizer(train_bpe(training_texts(), 300), folder.path());
  const Tokenizer json = Tokenizer::from_folder(folder.path());
  std::filesystem::remove(folder.path() / "tokenizer.json");
  const Tokenizer old = Tokenizer::from_folder(folder.path());
  for (const auto& text : training_texts()) EXPECT_EQ(json.encode(text), old.encode(text));
  EXPECT_EQ(old.added_tokens(), json.added_tokens());
  EXPECT_EQ(old.encode("<|im_end|>"), Ids{*json.id_of("<|im_end|>")});
}

TEST(Tokenizer, ManyThreadsAgree) {
  const Tokenizer tokenizer = small_tokenizer();
  const std::string text = "The picture shows two red squares, naïve 你好.";
  const Ids want = tokenizer.encode(text);
  std::vector<int> wrong(4);
  std::vector<std::thread> threads;
  for (auto& mine : wrong) {
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) mine += tokenizer.encode(text) != want;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_THAT(wrong, testing::Each(0));
}

// ---- what is refused

struct Wrong {
  std::string patch;  // JSON patch (RFC 6902) to small_json()
  std::string words;
};
class TokenizerErrors : public testing::TestWithParam<Wrong> {};

TEST_P(TokenizerErrors, NameFileAndPlace) {
  const Json json = small_json().patch(Json::parse(GetParam().patch));
  EXPECT_THAT([&] { load(json); }, ThrowsMessage<DataError>(HasSubstr(GetParam().words)));
}

INSTANTIATE_TEST_SUITE_P(
    Rows, TokenizerErrors,
    testing::Values(
        Wrong{R"([{"op":"remove","path":"/model"}])", "t.json: 'model' is missing"},
        Wrong{R"([{"op":"replace","path":"/model/type","value":"Unigram"}])",
              "t.json: model: model 'Unigram' is not supported; known: BPE"},
        Wrong{R"([{"op":"replace","path":"/normalizer/type","value":"NFKC"}])",
              "normalizer 'NFKC' is not supported"},
        Wrong{R"([{"op":"replace","path":"/pre_tokenizer/pretokenizers/0/type","value":"Digits"}])",
              "pre_tokenizer.pretokenizers[0]: pre_tokenizer 'Digits' is not supported"},
        Wrong{R"([{"op":"replace","path":"/pre_tokenizer","value":null}])", "no pre_tokenizer"},
        Wrong{
            R"([{"op":"replace","path":"/pre_tokenizer/pretokenizers/0/behavior","value":"Removed"}])",
            "behavior 'Removed' is not supported"},
        Wrong{
            R"([{"op":"replace","path":"/pre_tokenizer/pretokenizers/1/use_regex","value":true}])",
            "use_regex = true is not supported"},
        Wrong{R"([{"op":"replace","path":"/decoder/type","value":"Metaspace"}])",
              "decoder 'Metaspace' is not supported"},
        Wrong{R"([{"op":"replace","path":"/post_processor","value":{"type":"BertProcessing"}}])",
              "post_processor 'BertProcessing' is not supported"},
        Wrong{R"([{"op":"add","path":"/model/dropout","value":0.1}])", "dropout is not supported"},
        Wrong{R"([{"op":"add","path":"/model/byte_fallback","value":true}])",
              "model: byte_fallback = true is not supported"},
        Wrong{R"([{"op":"add","path":"/model/end_of_word_suffix","value":"</w>"}])",
              "end_of_word_suffix is not supported"},
        Wrong{R"([{"op":"add","path":"/model/vocab/zz","value":-1}])", "id -1 of token 'zz'"},
        Wrong{R"([{"op":"add","path":"/model/vocab/zz","value":4000000000}])",
              "id 4000000000 of token 'zz' is outside 0..4194303"},
        Wrong{R"([{"op":"add","path":"/model/vocab/zz","value":7}])", "id 7 belongs to two tokens"},
        Wrong{R"([{"op":"add","path":"/model/vocab/zz","value":"7"}])", "is not an integer"},
        Wrong{R"([{"op":"replace","path":"/model/vocab","value":[]}])",
              "model.vocab: is not an object"},
        Wrong{R"([{"op":"add","path":"/model/merges/0","value":"a zzz"}])",
              "model.merges[0]: 'zzz' is not in the vocabulary"},
        Wrong{R"([{"op":"add","path":"/model/merges/1","value":"a b c"}])",
              "model.merges[1]: 'a b c' is not two tokens and a blank"},
        Wrong{R"([{"op":"add","path":"/model/merges/1","value":["a"]}])",
              "is not a pair of tokens"},
        Wrong{R"([{"op":"add","path":"/added_tokens/0","value":{"id":5,"content":"<x>"}}])",
              "id 5 is the added token '<x>' but another one in the vocabulary"},
        Wrong{R"([{"op":"add","path":"/added_tokens/0","value":{"id":300,"content":""}}])",
              "added token 300 has no content"},
        Wrong{
            R"([{"op":"add","path":"/added_tokens/0","value":{"id":300,"content":"x","single_word":true}}])",
            "added_tokens[0]: single_word = true is not supported"},
        Wrong{R"([{"op":"add","path":"/added_tokens/0","value":{"id":300,"content":"x"}},
                  {"op":"add","path":"/added_tokens/0","value":{"id":300,"content":"y"}}])",
              "id 300 belongs to the added tokens 'y' and 'x'"}));

TEST(TokenizerErrors, OfTexts) {
  const Tokenizer tokenizer = load(small_json());
  EXPECT_THAT([&] { tokenizer.encode("ab\xFF"); },
              ThrowsMessage<DataError>(HasSubstr("text is not UTF-8 at byte 2 of 3")));
  EXPECT_THAT([&] { tokenizer.require_id("<|im_end|>"); },
              ThrowsMessage<DataError>("t.json: the tokenizer has no token '<|im_end|>'"));
  EXPECT_THAT(tokenizer.encode(""), IsEmpty());
  Json gap = small_json();
  gap["model"]["vocab"].erase("z");
  EXPECT_THAT([&] { load(gap).encode("xyz"); },
              ThrowsMessage<DataError>("byte 0x7A has no token in this vocabulary"));
}

TEST(TokenizerErrors, OfFolders) {
  const Scratch folder;
  const auto read = [&] { Tokenizer::from_folder(folder.path()); };
  EXPECT_THAT(read, ThrowsMessage<DataError>(HasSubstr("neither tokenizer.json nor vocab.json")));
  write_file_atomically(folder.path() / "vocab.json", R"({"a": 0, "b": 1})");
  write_file_atomically(folder.path() / "merges.txt", "#version: 0.2\na b\n");
  EXPECT_THAT(read, ThrowsMessage<DataError>(HasSubstr("does not say how text is cut")));
  write_file_atomically(folder.path() / "tokenizer_config.json",
                        R"({"tokenizer_class": "T5Tokenizer"})");
  EXPECT_THAT(read,
              ThrowsMessage<DataError>(HasSubstr("tokenizer_class 'T5Tokenizer' is not known")));
  write_file_atomically(folder.path() / "tokenizer_config.json",
                        R"({"tokenizer_class": "Qwen2Tokenizer"})");
  EXPECT_THAT(read, ThrowsMessage<DataError>(
                        HasSubstr("merges.txt: line 2: 'ab' is not in the vocabulary")));
}

TEST(TokenizerErrors, OfRankFiles) {
  const Scratch folder;
  const auto file = folder.path() / "ranks";
  const auto read = [&](std::string_view text) {
    write_file_atomically(file, text);
    Tokenizer::from_rank_file(file, {});
  };
  EXPECT_NO_THROW(read("YQ== 0\nYg== 1\nYWI= 2\n"));
  EXPECT_THAT([&] { read("YQ== 0\nYg==\n"); },
              ThrowsMessage<DataError>(HasSubstr("line 2: is not a token and a rank")));
  EXPECT_THAT([&] { read("YQ== 0\nYg== 0\n"); },
              ThrowsMessage<DataError>(HasSubstr("line 2: rank 0 occurs twice")));
  EXPECT_THAT([&] { read("YQ== 0\nYQ== 1\n"); },
              ThrowsMessage<DataError>(HasSubstr("rank 1 repeats the token of rank 0")));
  EXPECT_THAT([&] { read("YQ== x\n"); }, ThrowsMessage<DataError>(HasSubstr("rank 'x'")));
}

// ---- the trainer

TEST(BpeTrainer, DependsOnTheTextsOnly) {
  auto texts = training_texts();
  const TrainedBpe bpe = train_bpe(texts, 280);
  std::ranges::reverse(texts);
  const TrainedBpe again = train_bpe(texts, 280);
  EXPECT_EQ(bpe.pieces, again.pieces);
  EXPECT_EQ(bpe.merges, again.merges);
  EXPECT_EQ(bpe.pieces.size(), 280);
  EXPECT_EQ(bpe.merges.size(), 24);
  EXPECT_EQ(bpe.added.size(), 22);
  EXPECT_EQ(bpe.added.front().id, 280);
  EXPECT_EQ(bpe.pieces[220], " ");
}

TEST(BpeTrainer, JoinsTheMostFrequentPairFirst) {
  const std::vector<std::string> texts = {"bab bab bab", "aaaa"};
  const TrainedBpe bpe = train_bpe(texts, 1000);
  const auto piece = [&](size_t k) { return bpe.pieces[256 + k]; };
  // ab and ba occur three times, ' b' twice and aa three times (overlapping): lower ids first.
  EXPECT_EQ(piece(0), "aa");
  EXPECT_EQ(piece(1), "ab");
  EXPECT_EQ(piece(2), "bab");
  EXPECT_EQ(piece(3), " bab");
  EXPECT_EQ(bpe.pieces.size(), 260) << "stops when no pair is left that occurs twice";
}

TEST(BpeTrainer, RefusesSizesThatMakeNoSense) {
  EXPECT_THAT([] { train_bpe({}, 255); },
              ThrowsMessage<UsageError>(HasSubstr("has 256 to 1048575 entries, not 255")));
}

}  // namespace
}  // namespace triptych
