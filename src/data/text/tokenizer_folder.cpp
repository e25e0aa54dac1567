// The older forms a vocabulary comes in: vocab.json with merges.txt, and rank files.

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "data/base64.h"
#include "data/text/tokenizer_parts.h"

namespace triptych {

std::vector<AddedToken> parse_added_tokens_decoder(const Json& config, std::string_view origin);

namespace {

constexpr uint64_t kVocabularyLimit = 256u << 20;

/// Runs each(line, "line N") over lines without their ends.
template <class Each>
void for_lines(std::string_view text, Each each) {
  size_t number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (!line.empty()) each(line, number);
  }
}

/// The ids that the bytes of token `rank` reduce to when only lower ranks may join.
std::vector<int32_t> reduce(std::string_view token, int32_t rank,
                            const std::unordered_map<std::string_view, int32_t>& ranks) {
  std::vector<size_t> cuts(token.size() + 1);  // borders of the parts
  for (size_t i = 0; i < cuts.size(); ++i) cuts[i] = i;
  const auto rank_of = [&](size_t begin, size_t end) {
    const auto found = ranks.find(token.substr(begin, end - begin));
    return found == ranks.end() ? INT32_MAX : found->second;
  };
  while (cuts.size() > 3) {
    int32_t best = INT32_MAX;
    size_t at = 0;
    for (size_t i = 0; i + 2 < cuts.size(); ++i) {
      const int32_t r = rank_of(cuts[i], cuts[i + 2]);
      if (r < best) best = r, at = i;
    }
    if (best >= rank) break;
    cuts.erase(cuts.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
  std::vector<int32_t> ids;
  for (size_t i = 0; i + 1 < cuts.size(); ++i) ids.push_back(rank_of(cuts[i], cuts[i + 1]));
  return ids;
}

}  // namespace

TokenizerParts read_vocab_and_merges(const std::filesystem::path& folder) {
  TokenizerParts parts;
  parts.origin = folder.string();

  const auto config_file = folder / "tokenizer_config.json";
  require<DataError>(std::filesystem::exists(config_file), folder.string(),
                     ": vocab.json without tokenizer.json or tokenizer_config.json does not say "
                     "how text is cut into pieces");
  const Json config = read_json(config_file);
  const std::string name = config.is_object() && config.contains("tokenizer_class") &&
                                   config.at("tokenizer_class").is_string()
                               ? config.at("tokenizer_class").get<std::string>()
                               : "";
  if (name == "Qwen2Tokenizer" || name == "Qwen2TokenizerFast") {
    parts.pattern = PiecePattern(PiecePattern::Kind::kQwen2);
  } else if (name == "GPT2Tokenizer" || name == "GPT2TokenizerFast") {
    parts.pattern = PiecePattern(PiecePattern::Kind::kGpt2);
    parts.nfc = false;
  } else {
    fail<DataError>(
        config_file.string(), ": tokenizer_class '", name,
        "' is not known without a tokenizer.json; known: Qwen2Tokenizer, GPT2Tokenizer");
  }
  if (config.contains("add_prefix_space") && config.at("add_prefix_space").is_boolean()) {
    parts.add_prefix_space = config.at("add_prefix_space").get<bool>();
  }
  parts.added = parse_added_tokens_decoder(config, config_file.string());

  const auto vocab_file = folder / "vocab.json";
  VocabularyBuilder builder(folder.string());
  const Json vocab = read_json(vocab_file);
  require<DataError>(vocab.is_object(), vocab_file.string(), ": is not an object");
  for (const auto& [token, id] : vocab.get_ref<const Json::object_t&>()) {
    require<DataError>(id.is_number_integer(), vocab_file.string(), ": id of token '", token,
                       "' is not an integer");
    builder.add(token, id.get<int64_t>(), "vocab.json");
  }
  const auto merges_file = folder / "merges.txt";
  const std::string merges = read_file(merges_file, kVocabularyLimit);
  for_lines(merges, [&](std::string_view line, size_t number) {
    if (line.starts_with("#version")) return;
    const std::string place = "merges.txt: line " + std::to_string(number);
    const size_t blank = line.find(' ');
    require<DataError>(blank != line.npos && line.find(' ', blank + 1) == line.npos,
                       folder.string(), ": ", place, ": '", line,
                       "' is not two tokens and a blank");
    builder.merge(line.substr(0, blank), line.substr(blank + 1), place);
  });
  parts.pieces = builder.take_pieces();
  parts.merges = builder.take_merges();
  return parts;
}

TokenizerParts read_ranks(const std::filesystem::path& file, std::span<const AddedToken> added) {
  TokenizerParts parts;
  parts.origin = file.string();
  parts.added.assign(added.begin(), added.end());
  const std::string text = read_file(file, kVocabularyLimit);
  for_lines(text, [&](std::string_view line, size_t number) {
    const std::string place = file.string() + ": line " + std::to_string(number);
    const size_t blank = line.find(' ');
    require<DataError>(blank != line.npos, place, ": is not a token and a rank");
    const std::string_view digits = line.substr(blank + 1);
    int32_t rank = -1;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
    require<DataError>(error == std::errc() && end == digits.data() + digits.size() && rank >= 0 &&
                           rank <= kMaxTokenId,
                       place, ": rank '", digits, "' is not a number in 0..", kMaxTokenId);
    const auto decoded = decode_base64(line.substr(0, blank), place);
    require<DataError>(!decoded.empty(), place, ": the token is empty");
    std::string bytes(reinterpret_cast<const char*>(decoded.data()), decoded.size());
    if (parts.pieces.size() <= static_cast<size_t>(rank)) parts.pieces.resize(rank + 1);
    require<DataError>(parts.pieces[rank].empty(), place, ": rank ", rank, " occurs twice");
    parts.pieces[rank] = std::move(bytes);
  });
  std::unordered_map<std::string_view, int32_t> ranks;
  ranks.reserve(parts.pieces.size());
  for (size_t i = 0; i < parts.pieces.size(); ++i) {
    if (parts.pieces[i].empty()) continue;
    const bool is_new = ranks.emplace(parts.pieces[i], static_cast<int32_t>(i)).second;
    require<DataError>(is_new, file.string(), ": rank ", i, " repeats the token of rank ",
                       ranks.at(parts.pieces[i]));
  }
  for (size_t i = 0; i < parts.pieces.size(); ++i) {
    constexpr size_t kLongest =
        4096;  // reduce() is quadratic; the longest real token has 128 bytes
    require<DataError>(parts.pieces[i].size() <= kLongest, file.string(), ": the token of rank ", i,
                       " has ", parts.pieces[i].size(), " bytes, at most ", kLongest);
    if (parts.pieces[i].size() < 2) continue;
    const auto ids = reduce(parts.pieces[i], static_cast<int32_t>(i), ranks);
    // A token that reduces to three or more can be reached by no merge: the reference leaves it
    // too.
    if (ids.size() == 2 && ids[0] != INT32_MAX && ids[1] != INT32_MAX) {
      parts.merges.push_back({ids[0], ids[1], static_cast<int32_t>(i)});
    }
  }
  return parts;
}

}  // namespace triptych
