#include "train/verify_inputs.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/format.h"
#include "checkpoint/safetensors.h"
#include "data/pipeline.h"

namespace triptych {

namespace {

// A grey level is at least 0.014 of a normalised value, so this holds every byte of a resized
// picture exactly and allows only the rounding of the normalisation.
constexpr double kPixels = 1e-6;
constexpr int64_t kDefaultMaxPixels = 28 * 28 * 1280;

using Ids = std::vector<int64_t>;

Ids widen(const std::vector<int32_t>& values) { return {values.begin(), values.end()}; }

/// Lists of integers under one name in the table: how many differ, and the first that does.
class ListCheck {
 public:
  explicit ListCheck(std::string quantity) : quantity_(std::move(quantity)) {}

  void add(const std::string& place, const Ids& got, const Ids& expected) {
    ++count_;
    if (got == expected) return;
    if (++wrong_ > 1) return;
    const auto [g, e] = std::mismatch(got.begin(), got.end(), expected.begin(), expected.end());
    const auto show = [](auto at, auto end) { return at == end ? "none" : std::to_string(*at); };
    note_ = fmt::format("{}, place {}: got {}, expected {}", place, g - got.begin(),
                        show(g, got.end()), show(e, expected.end()));
  }

  /// A check of nothing is a failure.
  void finish(VerifyTable& table) const {
    table.add({.quantity = fmt::format("{} ({})", quantity_, count_),
               .measure = Measure::kExact,
               .error = count_ > 0 ? wrong_ : std::numeric_limits<double>::infinity(),
               .tolerance = 0,
               .note = count_ > 0 ? note_ : "the folder holds none"});
  }

 private:
  std::string quantity_, note_;
  int count_ = 0;
  double wrong_ = 0;
};

class InputVerifier {
 public:
  InputVerifier(const std::filesystem::path& folder, const Json& manifest,
                const ReferenceBatches& reference, VerifyTable& table)
      : folder_(folder), manifest_(manifest), reference_(reference), table_(table) {}

  void run() {
    sizes();
    texts();
    pixels(ResizeChoice::kPillow, "pil", true);
    pixels(ResizeChoice::kTorch, "torchvision", false);
    if (manifest_.value("format", 1) >= 2) {
      conversations();
      return;
    }
    for (const char* quantity : {"tokens of records", "labels of records", "inputs of batches"})
      table_.add_absent(quantity, "a folder of the first format; make it again");
  }

 private:
  const Json& member(const Json& object, std::string_view key) const {
    return json_member(object, key, (folder_ / "manifest.json").string());
  }

  void sizes() {
    const auto limits = read_vision_options(folder_ / "ckpt").image;
    ListCheck check("smart_resize");
    for (const auto& entry : member(manifest_, "smart_resize")) {
      const ImageSize size{member(entry, "w").get<int64_t>(), member(entry, "h").get<int64_t>()};
      const auto place = fmt::format("{} x {}", size.width, size.height);
      const auto add = [&](const PixelLimits& within, const char* key) {
        const auto got = smart_resize(size, 28, within, place);
        check.add(fmt::format("{}, {}", place, key), {got.height, got.width},
                  member(entry, key).get<Ids>());
      };
      add(limits, "out");
      add({limits.min_pixels, kDefaultMaxPixels}, "out_default_max");
    }
    check.finish(table_);
  }

  void texts() {
    const auto tokenizer = Tokenizer::from_folder(folder_ / "ckpt");
    ListCheck check("tokens of texts");
    for (const auto& entry : member(manifest_, "tokenization")) {
      const auto text = member(entry, "text").get<std::string>();
      check.add(dump_json(text), widen(tokenizer.encode(text)), member(entry, "ids").get<Ids>());
    }
    check.finish(table_);
  }

  static RgbImage picture(const at::Tensor& pixels, const std::string& name) {
    require<DataError>(
        pixels.dim() == 3 && pixels.size(2) == 3 && pixels.scalar_type() == at::kByte,
        "images.safetensors: ", name, " must be bytes of [height, width, 3]");
    const auto dense = pixels.contiguous();
    const auto* bytes = dense.const_data_ptr<uint8_t>();
    return {.size = {pixels.size(1), pixels.size(0)},
            .pixels = {bytes, bytes + dense.numel()},
            .warning = {}};
  }

  /// All media of one kind, one after another, against rows and grids.
  void compare_media(const std::string& rows_name, const std::vector<MediaPatches>& media,
                     const at::Tensor& rows, const at::Tensor& grids) {
    std::vector<float> values;
    Ids sizes;
    for (const auto& medium : media) {
      values.insert(values.end(), medium.rows.begin(), medium.rows.end());
      sizes.insert(sizes.end(), {medium.grid.t, medium.grid.h, medium.grid.w});
    }
    const int64_t width = rows.size(-1), count = static_cast<int64_t>(values.size());
    table_.compare(rows_name, at::tensor(values, at::kFloat).reshape({count / width, width}), rows,
                   Measure::kAbsolute, kPixels);
    ListCheck check("grids of " + rows_name);
    check.add("grids", sizes, to_list(grids));
    check.finish(table_);
  }

  void pixels(ResizeChoice rule, const std::string& name, bool required) {
    if (!required && !reference_.has("pixel_values." + name)) {
      table_.add_absent("pixel_values." + name, "made without torchvision");
      return;
    }
    auto options = read_vision_options(folder_ / "ckpt");
    options.resize = rule;
    const QwenVision vision(options);
    const auto file = SafetensorsFile::open(folder_ / "images.safetensors");
    std::vector<MediaPatches> pictures;
    for (int i = 0; file->find(fmt::format("image{}", i)); ++i) {
      const auto key = fmt::format("image{}", i);
      pictures.push_back(vision.image(to_picture(picture(file->read(key), key)), key));
    }
    const auto clip = file->read("video");
    std::vector<RgbImage> frames;
    for (int64_t i = 0; i < clip.size(0); ++i) frames.push_back(picture(clip[i], "video"));
    const std::vector<MediaPatches> videos{vision.video(frames, 0, "video")};
    compare_media("pixel_values." + name, pictures, reference_.want("pixel_values." + name),
                  reference_.want("image_grid_thw"));
    compare_media("pixel_values_videos." + name, videos,
                  reference_.want("pixel_values_videos." + name),
                  reference_.want("video_grid_thw"));
  }

  /// One tokenizer and rule of labels, with what came out of it so far.
  struct Rule {
    std::unique_ptr<QwenProcessor> processor;
    ListCheck tokens, labels;
  };

  Rule make_rule(const std::string& name, const Json& entry) const {
    DataOptions options;
    options.max_length = 1 << 20;
    options.image_resize = ResizeChoice::kPillow;
    options.learn = parse_learn(member(entry, "learn").get<std::string>());
    options.label_tokens = parse_label_tokens(member(entry, "label_tokens").get<std::string>());
    return {make_processor(options, folder_ / member(entry, "folder").get<std::string>()),
            ListCheck("tokens of records: " + name), ListCheck("labels of records: " + name)};
  }

  /// Records through the code that reads training data.
  void conversations() {
    const Dataset data(
        {RecordSource{.path = folder_ / "conversations.jsonl", .names = {}, .media = {}}});
    std::map<std::string, Rule> rules;
    std::map<std::string, Sample> samples;  // of the batches
    for (const auto& entry : read_json(folder_ / "conversations_expected.json")) {
      const auto word = [&](const char* key) { return member(entry, key).get<std::string>(); };
      const auto name = word("folder") + ", " + word("learn") + ", " + word("label_tokens");
      if (!rules.contains(name)) rules.emplace(name, make_rule(name, entry));
      auto& rule = rules.at(name);
      const auto number = member(entry, "record").get<int64_t>();
      require<DataError>(number >= 0 && number < data.size(),
                         "conversations_expected.json: record ", number, " of ", data.size());
      const auto record = data.conversation({.record = number});
      const auto text = rule.processor->plan(record).text;
      rule.tokens.add(word("name"), widen(text.tokens), member(entry, "ids").get<Ids>());
      rule.labels.add(word("name"), widen(text.labels), member(entry, "labels").get<Ids>());
      if (name == "ckpt, assistant, separate")
        samples.emplace(word("name"), rule.processor->make(record));
    }
    require<DataError>(!rules.empty(), "conversations_expected.json: there are no records");
    for (const auto& [name, rule] : rules) {
      rule.tokens.finish(table_);
      rule.labels.finish(table_);
    }
    for (const auto& [name, members] : member(manifest_, "batches").items())
      batch(name, members, samples);
  }

  /// The inputs that the model's quantities are computed from, made here from records and files.
  void batch(const std::string& name, const Json& members,
             const std::map<std::string, Sample>& samples) {
    const auto ids = reference_.input(name + ".input_ids");
    const auto mask = reference_.has_input(name + ".attention_mask")
                          ? reference_.input(name + ".attention_mask").to(at::kBool)
                          : at::ones_like(ids, at::kBool);
    const bool labelled = reference_.has_input(name + ".labels");
    Ids tokens, labels;
    std::vector<MediaPatches> pictures, videos;
    for (const auto& member_name : members) {
      const auto it = samples.find(member_name.get<std::string>());
      require<DataError>(it != samples.end(), "manifest.json: batch ", name, " has ",
                         dump_json(member_name), ", which is no record");
      const auto& made = it->second;
      // Without labels it is a prompt: what stands before the first answer.
      const auto end = labelled ? made.labels.end()
                                : std::find_if(made.labels.begin(), made.labels.end(),
                                               [](int32_t x) { return x != kIgnoreLabel; });
      const auto length = end - made.labels.begin();
      tokens.insert(tokens.end(), made.tokens.begin(), made.tokens.begin() + length);
      labels.insert(labels.end(), made.labels.begin(), made.labels.begin() + length);
      for (const auto& medium : made.media)
        (medium.kind == MediaKind::kVideo ? videos : pictures).push_back(medium);
    }
    const auto valid = [&](const at::Tensor& all) { return to_list(all.masked_select(mask)); };
    ListCheck token_check(name + ".input_ids"), label_check(name + ".labels");
    token_check.add("tokens", tokens, valid(ids));
    token_check.finish(table_);
    if (labelled) {
      label_check.add("labels", labels, valid(reference_.input(name + ".labels")));
      label_check.finish(table_);
    }
    const auto media = [&](const std::string& rows, const char* grids,
                           const std::vector<MediaPatches>& made) {
      if (made.empty() && !reference_.has_input(name + rows)) return;
      compare_media(name + rows, made, reference_.input(name + rows),
                    reference_.input(name + grids));
    };
    media(".pixel_values", ".image_grid_thw", pictures);
    media(".pixel_values_videos", ".video_grid_thw", videos);
  }

  const std::filesystem::path& folder_;
  const Json& manifest_;
  const ReferenceBatches& reference_;
  VerifyTable& table_;
};

}  // namespace

void verify_inputs(const std::filesystem::path& folder, const Json& manifest,
                   const ReferenceBatches& reference, VerifyTable& table) {
  InputVerifier(folder, manifest, reference, table).run();
}

}  // namespace triptych
