#include <gmock/gmock.h>

#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/utf8.h"
#include "data/text/char_class.h"
#include "data/text/piece_pattern.h"

namespace triptych {
namespace {

using Kind = PiecePattern::Kind;
using testing::HasSubstr;
using testing::ThrowsMessage;
using Pieces = std::vector<std::string>;

Pieces pieces(const PiecePattern& pattern, std::string_view text) {
  Pieces found;
  pattern.pieces(text, [&](std::string_view piece) { found.emplace_back(piece); });
  return found;
}

struct Case {
  Kind kind;
  std::string text;
  Pieces want;
};
class Published : public testing::TestWithParam<Case> {};

TEST_P(Published, CutsAsTheReference) {
  const auto& [kind, text, want] = GetParam();
  EXPECT_EQ(pieces(PiecePattern(kind), text), want);
}

INSTANTIATE_TEST_SUITE_P(
    Texts, Published,
    testing::Values(
        Case{Kind::kQwen2, "", {}}, Case{Kind::kQwen2, "Hello  world", {"Hello", " ", " world"}},
        Case{Kind::kQwen2, "I'LL we've'", {"I", "'LL", " we", "'ve", "'"}},
        Case{Kind::kQwen2, "a'\u017Fxy", {"a", "'\u017F", "xy"}},  // long s folds to s
        Case{Kind::kQwen2, " 12", {" ", "1", "2"}},
        Case{Kind::kLlama3, " 12345", {" ", "123", "45"}}, Case{Kind::kGpt2, " 12345", {" 12345"}},
        Case{Kind::kQwen2, "a\r\n\r\n b  c", {"a", "\r\n\r\n", " b", " ", " c"}},
        Case{Kind::kGpt2, "a\n\n b", {"a", "\n\n", " b"}},
        Case{Kind::kGpt2, "IT'S it's", {"IT", "'", "S", " it", "'s"}},
        Case{Kind::kQwen2, " \n \n x", {" \n \n", " x"}}, Case{Kind::kQwen2, "x  ", {"x", "  "}},
        Case{Kind::kQwen2, "(a) ...\n\nb", {"(a", ")", " ...\n\n", "b"}},
        Case{Kind::kQwen2, "\tx\t1", {"\tx", "\t", "1"}},
        Case{Kind::kQwen2, "\u3000\u3000!", {"\u3000", "\u3000", "!"}},
        Case{Kind::kQwen2, "a\u180Eb", {"a", "\u180Eb"}},  // no white space since Unicode 6.3
        Case{Kind::kQwen2, "\U00031350\U00031351", {"\U00031350\U00031351"}}));  // letters of 15.0

/// The scanner against PCRE2 on the same pattern, written so that it is not recognised. Characters
/// assigned long ago: PCRE2's tables are older.
TEST(PiecePattern, ScannerAgreesWithTheRegexEngine) {
  const std::vector<std::string> atoms = {
      " ", " ", "\n", "\r", "\t", "'",      "s",  "S", "l",      "L",      "v", "E", "e",
      "1", "9", ".",  ",",  "é",  "\u017F", "你", "²", "\u00A0", "\u3000", "ß", "٣"};
  std::mt19937 random(0);
  for (const Kind kind : {Kind::kQwen2, Kind::kLlama3, Kind::kGpt2}) {
    const PiecePattern scanner(kind);
    const PiecePattern regex("(?:" + std::string(PiecePattern::regex_of(kind)) + ")", "test");
    ASSERT_EQ(regex.kind(), Kind::kOther);
    for (int i = 0; i < 3000; ++i) {
      std::string text;
      for (size_t n = random() % 20; n > 0; --n) text += atoms[random() % atoms.size()];
      ASSERT_EQ(pieces(scanner, text), pieces(regex, text)) << "'" << text << "'";
    }
  }
}

TEST(PiecePattern, RegexGapsAndEmptyMatchesCut) {
  EXPECT_EQ(pieces(PiecePattern("b+", "test"), "aabbc"), (Pieces{"aa", "bb", "c"}));
  EXPECT_EQ(pieces(PiecePattern("(?=b)|x", "test"), "aébbx"), (Pieces{"aé", "b", "b", "x"}));
  EXPECT_EQ(pieces(PiecePattern("q", "test"), "aé"), (Pieces{"aé"}));
  EXPECT_EQ(pieces(PiecePattern(R"([^\S\n]+)", "test"), "a\u00A0\n b"),
            (Pieces{"a", "\u00A0", "\n", " ", "b"}));
}

TEST(PiecePatternErrors, AreClear) {
  EXPECT_THAT(
      [] { PiecePattern("a(", "t.json"); },
      ThrowsMessage<DataError>(HasSubstr("t.json: pattern a(: missing closing parenthesis")));
  EXPECT_THAT([] { PiecePattern("\\h+", "t.json"); },
              ThrowsMessage<DataError>(HasSubstr("\\h is not supported")));
  const PiecePattern slow("(a|aa)+$", "t.json");
  EXPECT_THAT([&] { pieces(slow, std::string(60, 'a') + "b"); },
              ThrowsMessage<DataError>(HasSubstr("t.json: the pattern gave up at byte 0")));
}

TEST(CharClasses, CountsOfUnicode16) {
  std::array<int64_t, 4> count{};
  for (uint32_t c = 0; c < 0x110000; ++c) ++count[static_cast<size_t>(char_classes()[c])];
  EXPECT_EQ(count[static_cast<size_t>(CharClass::kLetter)], 141028);
  EXPECT_EQ(count[static_cast<size_t>(CharClass::kNumber)], 1911);
  EXPECT_EQ(count[static_cast<size_t>(CharClass::kSpace)], 25);
}

struct Bytes {
  std::string bytes, repaired;
  size_t first_bad, tail;
};
class Utf8 : public testing::TestWithParam<Bytes> {};

TEST_P(Utf8, FindsAndRepairsWhatIsWrong) {
  const auto& [bytes, repaired, first_bad, tail] = GetParam();
  EXPECT_EQ(first_bad_utf8(bytes), first_bad);
  EXPECT_EQ(incomplete_utf8_tail(bytes), tail);
  EXPECT_EQ(repair_utf8(bytes), repaired);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, Utf8,
    testing::Values(Bytes{"", "", 0, 0}, Bytes{"plain ascii text", "plain ascii text", 16, 0},
                    Bytes{"é你🙂", "é你🙂", 9, 0}, Bytes{"a\x80z", "a\uFFFDz", 1, 0},
                    Bytes{"\xC3", "\uFFFD", 0, 1}, Bytes{"x\xE4\xBD", "x\uFFFD", 1, 2},
                    Bytes{"\xF0\x9F\x99", "\uFFFD", 0, 3}, Bytes{"\xC0\xAF", "\uFFFD\uFFFD", 0, 0},
                    Bytes{"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD", 0, 0},            // a surrogate
                    Bytes{"\xF4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD", 0, 0},  // above U+10FFFF
                    Bytes{"\xE4\xBDz\xF0\x9F", "\uFFFDz\uFFFD", 0, 2}));

}  // namespace
}  // namespace triptych
