// tokenizer.json of Hugging Face `tokenizers`. What is not understood is refused by name: a guess
// would train on other tokens without anybody noticing.

#include <optional>

#include "base/error.h"
#include "base/json.h"
#include "data/text/tokenizer_parts.h"

namespace triptych {
namespace {

/// Reads members with checks; `path` is where in the file we are.
class View {
 public:
  View(const Json& value, std::string_view origin, std::string path)
      : value_(value), origin_(origin), path_(std::move(path)) {}

  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    fail<DataError>(origin_, ": ", path_.empty() ? "" : path_ + ": ", parts...);
  }

  bool has(const char* key) const {
    return value_.is_object() && value_.contains(key) && !value_.at(key).is_null();
  }
  View at(const char* key) const {
    if (!value_.is_object()) refuse("is not an object");
    if (!value_.contains(key)) refuse("'", key, "' is missing");
    return {value_.at(key), origin_, path_.empty() ? key : path_ + "." + key};
  }
  View at(size_t index) const {
    return {value_.at(index), origin_, path_ + "[" + std::to_string(index) + "]"};
  }
  size_t size() const {
    if (!value_.is_array()) refuse("is not a list");
    return value_.size();
  }
  const std::string& text() const {
    if (!value_.is_string()) refuse("is not a string");
    return value_.get_ref<const std::string&>();
  }
  int64_t integer() const {
    if (!value_.is_number_integer()) refuse("is not an integer");
    return value_.get<int64_t>();
  }
  bool flag(const char* key, bool otherwise) const {
    if (!has(key)) return otherwise;
    const View member = at(key);
    if (!member.value_.is_boolean()) member.refuse("is not true or false");
    return member.value_.get<bool>();
  }
  void must_be(const char* key, bool wanted, bool otherwise) const {
    if (flag(key, otherwise) != wanted) {
      refuse(key, " = ", wanted ? "false" : "true", " is not supported");
    }
  }
  const Json& json() const { return value_; }
  const std::string& path() const { return path_; }
  const std::string& type() const { return at("type").text(); }

 private:
  const Json& value_;
  std::string_view origin_;
  std::string path_;
};

/// A component that may be a Sequence, as the list of what it is made of.
std::vector<View> steps(const View& component, const char* list) {
  if (component.type() != "Sequence") return {component};
  const View members = component.at(list);
  std::vector<View> found;
  for (size_t i = 0; i < members.size(); ++i) found.push_back(members.at(i));
  return found;
}

void read_normalizer(const View& root, TokenizerParts& parts) {
  parts.nfc = false;
  if (!root.has("normalizer")) return;
  for (const View& step : steps(root.at("normalizer"), "normalizers")) {
    if (step.type() != "NFC") {
      step.refuse("normalizer '", step.type(), "' is not supported; known: NFC");
    }
    parts.nfc = true;
  }
}

void read_pre_tokenizer(const View& root, TokenizerParts& parts) {
  if (!root.has("pre_tokenizer")) {
    root.refuse("there is no pre_tokenizer; known: ByteLevel, or Split followed by ByteLevel");
  }
  const auto found = steps(root.at("pre_tokenizer"), "pretokenizers");
  for (const View& step : found) {
    if (step.type() != "Split" && step.type() != "ByteLevel") {
      step.refuse("pre_tokenizer '", step.type(), "' is not supported; known: Split, ByteLevel");
    }
  }
  if (found.empty() || found.size() > 2 || found.back().type() != "ByteLevel" ||
      (found.size() == 2 && found.front().type() != "Split")) {
    root.at("pre_tokenizer").refuse("must be ByteLevel, or one Split followed by ByteLevel");
  }
  const View& level = found.back();
  parts.add_prefix_space = level.flag("add_prefix_space", true);
  if (found.size() == 1) {
    level.must_be("use_regex", true, true);
    parts.pattern = PiecePattern(PiecePattern::Kind::kGpt2);
    return;
  }
  level.must_be("use_regex", false, true);
  level.must_be("add_prefix_space", false, true);
  const View& split = found.front();
  const View pattern = split.at("pattern");
  if (!pattern.has("Regex")) pattern.refuse("only a Regex is supported");
  if (const auto& behavior = split.at("behavior").text(); behavior != "Isolated") {
    split.refuse("behavior '", behavior, "' is not supported; known: Isolated");
  }
  split.must_be("invert", false, false);
  parts.pattern = PiecePattern(pattern.at("Regex").text(), parts.origin);
}

void read_decoder(const View& root, TokenizerParts& parts) {
  parts.can_decode = root.has("decoder");
  if (!parts.can_decode) return;
  for (const View& step : steps(root.at("decoder"), "decoders")) {
    if (step.type() != "ByteLevel") {
      step.refuse("decoder '", step.type(), "' is not supported; known: ByteLevel");
    }
  }
}

/// These add tokens only on request, which we never make; any other might change what is there.
void check_post_processor(const View& root) {
  if (!root.has("post_processor")) return;
  for (const View& step : steps(root.at("post_processor"), "processors")) {
    if (step.type() != "ByteLevel" && step.type() != "TemplateProcessing") {
      step.refuse("post_processor '", step.type(),
                  "' is not supported; known: ByteLevel, TemplateProcessing");
    }
  }
}

void read_model(const View& model, TokenizerParts& parts) {
  if (model.has("type") && model.type() != "BPE") {
    model.refuse("model '", model.type(), "' is not supported; known: BPE");
  }
  model.must_be("byte_fallback", false, false);
  parts.whole_first = model.flag("ignore_merges", false);
  if (model.has("dropout") &&
      !(model.json().at("dropout").is_number() && model.json().at("dropout").get<double>() == 0)) {
    model.refuse("dropout is not supported");
  }
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (model.has(affix) && !model.at(affix).text().empty()) {
      model.refuse(affix, " is not supported");
    }
  }
  VocabularyBuilder builder(parts.origin);
  const View vocab = model.at("vocab");
  if (!vocab.json().is_object()) vocab.refuse("is not an object");
  for (const auto& [token, id] : vocab.json().get_ref<const Json::object_t&>()) {
    if (!id.is_number_integer()) vocab.refuse("id of token '", token, "' is not an integer");
    builder.add(token, id.get<int64_t>(), "model.vocab");
  }
  const View merges = model.at("merges");
  for (size_t i = 0, n = merges.size(); i < n; ++i) {
    const Json& merge = merges.json().at(i);
    const std::string place = "model.merges[" + std::to_string(i) + "]";
    if (merge.is_string()) {  // "left right" up to tokenizers 0.19
      const std::string_view words = merge.get_ref<const std::string&>();
      const size_t blank = words.find(' ');
      if (blank == std::string_view::npos || words.find(' ', blank + 1) != std::string_view::npos) {
        fail<DataError>(parts.origin, ": ", place, ": '", words, "' is not two tokens and a blank");
      }
      builder.merge(words.substr(0, blank), words.substr(blank + 1), place);
    } else {
      if (!merge.is_array() || merge.size() != 2 || !merge[0].is_string() ||
          !merge[1].is_string()) {
        fail<DataError>(parts.origin, ": ", place, ": is not a pair of tokens");
      }
      builder.merge(merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>(),
                    place);
    }
  }
  parts.pieces = builder.take_pieces();
  parts.merges = builder.take_merges();
}

AddedToken read_added(const View& token, int64_t id) {
  if (id < 0 || id > kMaxTokenId) token.refuse("id ", id, " is outside 0..", kMaxTokenId);
  token.must_be("single_word", false, false);
  return {.id = static_cast<int32_t>(id),
          .content = token.at("content").text(),
          .special = token.flag("special", false),
          .lstrip = token.flag("lstrip", false),
          .rstrip = token.flag("rstrip", false),
          .normalized = token.flag("normalized", false)};
}

}  // namespace

TokenizerParts parse_tokenizer_json(std::string_view json, std::string_view origin) {
  const Json document = parse_json(json, origin);
  TokenizerParts parts;
  parts.origin = origin;
  const View root(document, parts.origin, "");
  const View model = root.at("model");
  read_normalizer(root, parts);
  read_pre_tokenizer(root, parts);
  read_decoder(root, parts);
  check_post_processor(root);
  read_model(model, parts);
  if (root.has("added_tokens")) {
    const View added = root.at("added_tokens");
    for (size_t i = 0; i < added.size(); ++i) {
      parts.added.push_back(read_added(added.at(i), added.at(i).at("id").integer()));
    }
  }
  return parts;
}

std::vector<AddedToken> parse_added_tokens_decoder(const Json& config, std::string_view origin) {
  std::vector<AddedToken> added;
  const View root(config, origin, "");
  if (!root.has("added_tokens_decoder")) return added;
  const View list = root.at("added_tokens_decoder");
  if (!list.json().is_object()) list.refuse("is not an object");
  for (const auto& [key, token] : list.json().get_ref<const Json::object_t&>()) {
    int64_t id = -1;
    if (!key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == key.npos) {
      id = std::stoll(key);
    }
    added.push_back(read_added(View(token, origin, "added_tokens_decoder." + key), id));
  }
  return added;
}

}  // namespace triptych
