#include "base/hash.h"

#include <gtest/gtest.h>

#include <string>

namespace triptych {
namespace {

std::span<const std::byte> bytes(const std::string& s) {
  return std::as_bytes(std::span(s.data(), s.size()));
}

// RFC 3720, appendix B.4, and the check value of the CRC catalogue.
struct Known {
  std::string text;
  uint32_t crc;
};
class Crc32c : public testing::TestWithParam<Known> {};

TEST_P(Crc32c, KnownAnswers) {
  EXPECT_EQ(crc32c(GetParam().text), GetParam().crc);
  EXPECT_EQ(crc32c_portable(bytes(GetParam().text)), GetParam().crc);
}

std::string counting(int first, int step) {
  std::string s;
  for (int i = 0; i < 32; ++i) s += static_cast<char>(first + i * step);
  return s;
}

INSTANTIATE_TEST_SUITE_P(Rfc3720, Crc32c,
                         testing::Values(Known{"", 0}, Known{"123456789", 0xE3069283},
                                         Known{std::string(32, '\0'), 0x8A9136AA},
                                         Known{std::string(32, '\xff'), 0x62A8AB43},
                                         Known{counting(0, 1), 0x46DD794E},
                                         Known{counting(31, -1), 0x113FDB5C}));

TEST(Crc32c, ContinuesOverPieces) {
  const std::string all = "a somewhat longer text than eight bytes";
  for (size_t cut = 0; cut <= all.size(); ++cut) {
    EXPECT_EQ(crc32c(all.substr(cut), crc32c(all.substr(0, cut))), crc32c(all));
  }
}

TEST(Crc32c, MaskIsTheRecordFormats) {
  EXPECT_EQ(crc32c_masked(0), 0xA282EAD8u);
  EXPECT_EQ(crc32c_masked(0x00008000u), 0xA282EAD9u);
  EXPECT_EQ(crc32c_masked(1), 0xA282EAD8u + (1u << 17));
}

TEST(Xxh3, KnownAnswerAndPieces) {
  EXPECT_EQ(xxh3_64(std::string_view()), 0x2D06800538D394C2u);  // published value of no bytes
  std::string all;
  for (int i = 0; i < 5000; ++i) all += static_cast<char>(i * 7);
  Xxh3 hash;
  hash.update(bytes(all.substr(0, 1)));
  hash.update(bytes(all.substr(1, 3000)));
  hash.update(bytes(all.substr(3001)));
  EXPECT_EQ(hash.digest(), xxh3_64(all));
}

TEST(Hex, HasSixteenDigits) { EXPECT_EQ(hex64(0xabc), "0000000000000abc"); }

}  // namespace
}  // namespace triptych
