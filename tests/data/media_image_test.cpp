#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "base/files.h"
#include "data/media/encode.h"
#include "data/media/image.h"
#include "support/scratch.h"
#include "tests/data/media_testing.h"

namespace triptych {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using namespace triptych::testing;

TEST(Image, EveryKindOfFileReadsAsPillowReadsIt) {
  for (const auto& golden : goldens()["files"]) {
    const auto name = golden["name"].get<std::string>();
    const auto file = from_hex(golden["file"].get<std::string>());
    const ImageSize size{golden["width"], golden["height"]};
    // Pillow carries newer decoders of the lossy formats; measured difference on larger files: none
    const int tolerance = name.starts_with("png") || name.find("lossless") != name.npos ? 0 : 1;
    EXPECT_EQ(probe_image(as_bytes(file), name).size, size) << name;
    for (const auto& [key, alpha] :
         {std::pair{"drop", AlphaRule::kDrop}, std::pair{"white", AlphaRule::kWhite}}) {
      const auto image = decode_image(as_bytes(file), name, alpha);
      const auto want = pixels_from_hex(golden[key]);
      ASSERT_EQ(image.pixels.size(), want.size()) << name;
      int worst = 0;
      for (size_t i = 0; i < want.size(); ++i) {
        worst = std::max(worst, std::abs(image.pixels[i] - want[i]));
      }
      EXPECT_LE(worst, tolerance) << name << ", " << key;
      EXPECT_EQ(image.size, size) << name;
      EXPECT_EQ(image.warning, "") << name;
    }
  }
}

TEST(Image, ProbeNamesTheFormat) {
  for (const auto& golden : goldens()["files"]) {
    const auto name = golden["name"].get<std::string>();
    const auto file = from_hex(golden["file"].get<std::string>());
    const auto format = std::string(to_string(probe_image(as_bytes(file), name).format));
    EXPECT_TRUE(name.starts_with(format == "JPEG" ? "jpeg" : format == "PNG" ? "png" : "webp"));
  }
}

TEST(Image, FilesAndBytesGiveTheSame) {
  const Scratch folder;
  const auto image = noise_image(31, 17);
  write_png(folder / "a.png", image);
  EXPECT_EQ(probe_image(folder / "a.png").size, image.size);
  EXPECT_EQ(decode_image(folder / "a.png").pixels, image.pixels);
  EXPECT_EQ(decode_image(as_bytes(encode_png(image)), "bytes").pixels, image.pixels);
}

TEST(Image, JpegKeepsColoursWithinItsQuality) {
  RgbImage flat{.size = {40, 24}};
  for (int64_t i = 0; i < flat.size.pixels(); ++i) {
    flat.pixels.insert(flat.pixels.end(), {200, 60, 30});
  }
  const auto back = decode_image(as_bytes(encode_jpeg(flat, 95)), "flat");
  ASSERT_EQ(back.pixels.size(), flat.pixels.size());
  for (size_t i = 0; i < back.pixels.size(); ++i) {
    EXPECT_NEAR(back.pixels[i], flat.pixels[i], 3);  // quantisation and the colour transform
  }
}

struct Broken {
  const char* name;
  std::string file, message;
};

class ImageErrors : public ::testing::TestWithParam<Broken> {};

TEST_P(ImageErrors, NameTheFileAndTheReason) {
  const auto& [name, file, message] = GetParam();
  EXPECT_THAT([&] { decode_image(as_bytes(file), "cat.img"); },
              ThrowsMessage<DataError>(AllOf(HasSubstr("cat.img: "), HasSubstr(message))));
}

std::string jpeg() { return encode_jpeg(noise_image(64, 48)); }
std::string png() { return encode_png(noise_image(64, 48)); }
std::string cut(std::string text, size_t keep) { return text.substr(0, keep); }
std::string changed(std::string text, size_t at) {
  text[at] = static_cast<char>(text[at] ^ 0x55);
  return text;
}
std::string golden_file(const std::string& name) {
  for (const auto& golden : goldens()["files"]) {
    if (golden["name"] == name) return from_hex(golden["file"].get<std::string>());
  }
  return "";
}
/// A PNG header that claims a size; nothing behind it.
std::string claimed_png(const char* size) { return png().replace(16, 8, std::string(size, 8)); }

INSTANTIATE_TEST_SUITE_P(
    Files, ImageErrors,
    ::testing::Values(
        Broken{"empty", "", "the picture is empty (0 bytes)"},
        Broken{"gif", "GIF89a....", "a GIF file (it starts with 47 49 46 38"},
        Broken{"html", "<html>", "an HTML, XML or SVG file"},
        Broken{"text", "hello", "pictures must be JPEG, PNG or WebP"},
        Broken{"jpeg_header_cut", cut(jpeg(), 20), "JPEG: "},
        Broken{"jpeg_half", cut(jpeg(), jpeg().size() / 2), "JPEG: Premature end of JPEG file"},
        Broken{"jpeg_end_marker_missing", cut(jpeg(), jpeg().size() - 2), "Premature end"},
        Broken{"png_header_cut", cut(png(), 25), "PNG: the header is missing or cut off"},
        Broken{"png_half", cut(png(), png().size() / 2), "PNG: the file ends too early"},
        Broken{"png_changed", changed(png(), 2000), "PNG: "},
        Broken{"png_zero", claimed_png("\0\0\0\0\0\0\0\x30"), "0 x 48 pixels"},
        Broken{"png_bomb", claimed_png("\0\x01\0\0\0\x01\0\0"),
               "65536 x 65536 pixels, the limit is 178956970 in all"},
        Broken{"png_huge", claimed_png("\xff\0\0\0\0\0\0\x01"), "beyond the format's"},
        Broken{"webp_cut", cut(golden_file("webp"), 30), "WebP: "},
        Broken{"webp_half", cut(golden_file("webp lossless"), 120), "WebP: "},
        Broken{"webp_animation_cut", cut(golden_file("webp animation"), 150), "WebP: "}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(Image, LimitIsTheCallersToSet) {
  const auto file = png();
  const ImageLimits tight{.max_pixels = 64 * 48 - 1};
  EXPECT_THAT([&] { probe_image(as_bytes(file), "cat.png", tight); },
              ThrowsMessage<DataError>("cat.png: the picture is 64 x 48 pixels, the limit is 3071 "
                                       "in all"));
  EXPECT_EQ(probe_image(as_bytes(file), "cat.png", {.max_pixels = 64 * 48}).size.width, 64);
}

TEST(Image, DamageThatTheReferenceDecodesAroundIsReported) {
  auto file = jpeg();
  file = file.substr(0, file.size() / 2) + "\xff\xd9";  // an end marker in the middle
  const auto image = decode_image(as_bytes(file), "cat.jpg");
  EXPECT_EQ(image.size, (ImageSize{64, 48}));
  EXPECT_THAT(image.warning, HasSubstr("premature end of data segment"));
}

TEST(Image, TooManyScansAreRefused) {
  auto file = golden_file("jpeg progressive");
  // the last scan (its header and data, before the end marker), a thousand times
  const auto last = file.rfind("\xff\xda");
  const auto scan = file.substr(last, file.size() - 2 - last);
  file.resize(file.size() - 2);
  for (int i = 0; i < 1000; ++i) file += scan;
  file += "\xff\xd9";
  EXPECT_THAT([&] { decode_image(as_bytes(file), "cat.jpg"); },
              ThrowsMessage<DataError>("cat.jpg: JPEG: more than 500 scans"));
}

TEST(Image, MissingFileIsAnErrorWithItsPath) {
  EXPECT_THAT([] { probe_image(std::filesystem::path("/nowhere/cat.png")); },
              ThrowsMessage<DataError>(HasSubstr("/nowhere/cat.png")));
}

}  // namespace
}  // namespace triptych
