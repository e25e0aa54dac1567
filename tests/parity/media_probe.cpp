// Runs the media functions on what a parity script sends: one command a line, fields separated by
// tabs, one answer a line ("ok ..." or "error ..."); arrays go through files of raw bytes.

#include <cstdio>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/format.h"
#include "data/media/qwen_vision.h"

namespace {

using namespace triptych;
using Fields = std::vector<std::string>;

void write_raw(const std::string& path, const void* data, size_t bytes) {
  std::ofstream(path, std::ios::binary)
      .write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
}

std::string size_text(ImageSize size) { return fmt::format("{} {}", size.width, size.height); }

// path, drop | white, out
std::string decode(const Fields& f) {
  const auto image =
      decode_image(f.at(1), f.at(2) == "white" ? AlphaRule::kWhite : AlphaRule::kDrop);
  write_raw(f.at(3), image.pixels.data(), image.pixels.size());
  return size_text(image.size);
}

// raw, width, height, channels, to width, to height, filter, precision, simd, out
std::string run_resize(const Fields& f) {
  const auto bytes = read_file(f.at(1));
  const std::span<const uint8_t> pixels{reinterpret_cast<const uint8_t*>(bytes.data()),
                                        bytes.size()};
  const ImageSize from{std::stol(f.at(2)), std::stol(f.at(3))};
  const ImageSize to{std::stol(f.at(5)), std::stol(f.at(6))};
  const int channels = std::stoi(f.at(4));
  std::vector<uint8_t> out;
  if (f.at(7) == "nearest") {
    out = resize_nearest(pixels, from, to, channels);
  } else {
    const std::map<std::string, SimdLevel> levels{{"portable", SimdLevel::kPortable},
                                                  {"avx2", SimdLevel::kAvx2},
                                                  {"avx512", SimdLevel::kAvx512}};
    const auto level = levels.at(f.at(9));
    if (level > simd_level()) return "absent";
    out = resize(
        pixels, from, to, channels,
        {.filter = f.at(7) == "bicubic" ? ResizeFilter::kBicubic : ResizeFilter::kBilinear,
         .precision = f.at(8) == "pillow" ? WeightPrecision::kPillow : WeightPrecision::kTorch,
         .simd = level});
  }
  write_raw(f.at(10), out.data(), out.size());
  return size_text(to);
}

VisionOptions vision_options(const Fields& f, size_t first) {
  VisionOptions o;
  for (size_t i = first; i < f.size(); ++i) {
    const auto cut = f[i].find('=');
    const auto key = f[i].substr(0, cut), value = f[i].substr(cut + 1);
    if (key == "min") o.image.min_pixels = o.video.min_pixels = std::stol(value);
    if (key == "max") o.image.max_pixels = o.video.max_pixels = std::stol(value);
    if (key == "pre_min") o.image_pre.min_pixels = o.video_pre.min_pixels = std::stol(value);
    if (key == "pre_max") o.image_pre.max_pixels = o.video_pre.max_pixels = std::stol(value);
    if (key == "pre") {
      o.pre_resize = value == "mindspeed" ? PreResize::kMindSpeed : PreResize::kLlamaFactory;
    }
    if (key == "resize") {
      o.resize = value == "torch" ? ResizeChoice::kTorch : ResizeChoice::kPillow;
    }
    if (key == "alpha") o.alpha = value == "white" ? AlphaChoice::kWhite : AlphaChoice::kDrop;
  }
  return o;
}

std::string write_media(const MediaPatches& media, const MediaPlan& plan, const std::string& path) {
  require(media.grid == plan.grid, "planned grid differs from the one made");
  write_raw(path, media.rows.data(), media.rows.size() * sizeof(float));
  return fmt::format("{} {} {}", media.grid.t, media.grid.h, media.grid.w);
}

// path, out, options
std::string image_patches(const Fields& f) {
  const QwenVision vision(vision_options(f, 3));
  return write_media(vision.image(f.at(1)), vision.plan_image(f.at(1)), f.at(2));
}

// paths joined by '|', out, options
std::string video_patches(const Fields& f) {
  const QwenVision vision(vision_options(f, 3));
  VideoSource source;
  std::stringstream paths(f.at(1));
  for (std::string path; std::getline(paths, path, '|');) source.pictures.push_back(path);
  return write_media(vision.video(source), vision.plan_video(source), f.at(2));
}

// width, height, min, max
std::string run_smart_resize(const Fields& f) {
  return size_text(smart_resize({std::stol(f.at(1)), std::stol(f.at(2))}, 28,
                                {std::stol(f.at(3)), std::stol(f.at(4))}));
}

// rule, frames, fps, duration, wanted fps, min, max
std::string choose(const Fields& f) {
  const std::map<std::string, VideoSampling> rules{{"transformers", VideoSampling::kTransformers},
                                                   {"qwen_vl_utils", VideoSampling::kQwenVlUtils},
                                                   {"llamafactory", VideoSampling::kLlamaFactory}};
  const VideoInfo info{.size = {64, 48},
                       .frames = std::stol(f.at(2)),
                       .fps = std::stod(f.at(3)),
                       .duration_s = std::stod(f.at(4))};
  const auto choice = choose_frames(info, {.rule = rules.at(f.at(1)),
                                           .fps = std::stod(f.at(5)),
                                           .min_frames = std::stol(f.at(6)),
                                           .max_frames = std::stol(f.at(7))});
  auto text = fmt::format("{}", choice.fps);
  for (const auto i : choice.indices) text += fmt::format(" {}", i);
  return text;
}

}  // namespace

int main() {
  const std::map<std::string, std::function<std::string(const Fields&)>> commands{
      {"decode", decode},       {"resize", run_resize},      {"image", image_patches},
      {"video", video_patches}, {"smart", run_smart_resize}, {"choose", choose}};
  for (std::string line; std::getline(std::cin, line);) {
    Fields fields;
    std::stringstream parts(line);
    for (std::string field; std::getline(parts, field, '\t');) fields.push_back(field);
    try {
      const auto answer = commands.at(fields.at(0))(fields);
      std::cout << "ok " << answer << std::endl;
    } catch (const std::exception& e) {
      std::cout << "error " << e.what() << std::endl;
    }
  }
}
