#include "data/text/bpe_trainer.h"

#include <array>
#include <map>
#include <queue>
#include <set>
#include <unordered_map>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "base/utf8.h"
#include "data/text/byte_alphabet.h"
#include "data/text/normalizer.h"
#include "data/text/piece_pattern.h"

namespace triptych {
namespace {

using Pair = std::pair<int32_t, int32_t>;

struct Word {
  std::vector<int32_t> ids;
  int64_t count;
};

std::vector<Word> count_words(std::span<const std::string> texts) {
  std::array<int32_t, 256> id_of_byte{};
  for (int32_t id = 0; id < 256; ++id) id_of_byte[bytes_in_alphabet_order()[id]] = id;
  const PiecePattern pattern(PiecePattern::Kind::kQwen2);
  std::map<std::string, int64_t> counts;  // sorted, so that the order of texts leaves no trace
  std::string storage;
  for (size_t i = 0; i < texts.size(); ++i) {
    const size_t bad = first_bad_utf8(texts[i]);
    require<DataError>(bad == texts[i].size(), "training text ", i, " is not UTF-8 at byte ", bad);
    pattern.pieces(to_nfc(texts[i], storage),
                   [&](std::string_view piece) { ++counts[std::string(piece)]; });
  }
  std::vector<Word> words;
  for (const auto& [bytes, count] : counts) {
    Word word{{}, count};
    for (const char c : bytes) word.ids.push_back(id_of_byte[static_cast<unsigned char>(c)]);
    words.push_back(std::move(word));
  }
  return words;
}

/// How often each pair occurs and in which words; the heap holds old counts too, told apart on top.
class PairCounts {
 public:
  struct Candidate {
    int64_t count;
    Pair pair;
    bool operator<(const Candidate& o) const {
      return count != o.count ? count < o.count : pair > o.pair;  // of equals the lower ids first
    }
  };

  void change(Pair pair, size_t word, int64_t by) {
    Entry& entry = entries_[pair];
    entry.count += by;
    if (by > 0) entry.words.insert(word);
    touched_.insert(pair);
  }

  /// Queues what changed since the last call.
  void settle() {
    for (const Pair& pair : touched_) heap_.push({entries_[pair].count, pair});
    touched_.clear();
  }

  /// The most frequent pair that occurs at least twice, or false.
  bool pop(Pair& pair, std::set<size_t>& words) {
    while (!heap_.empty()) {
      const Candidate top = heap_.top();
      heap_.pop();
      const auto found = entries_.find(top.pair);
      if (found == entries_.end() || found->second.count != top.count || top.count < 2) continue;
      pair = top.pair;
      words = std::move(found->second.words);
      entries_.erase(found);
      return true;
    }
    return false;
  }

 private:
  struct Entry {
    int64_t count = 0;
    std::set<size_t> words;
  };
  std::map<Pair, Entry> entries_;
  std::set<Pair> touched_;
  std::priority_queue<Candidate> heap_;
};

/// Adds (sign 1) or takes away (-1) the pairs of a word.
void count_pairs(const Word& word, size_t index, int sign, PairCounts& pairs) {
  for (size_t i = 0; i + 1 < word.ids.size(); ++i) {
    pairs.change({word.ids[i], word.ids[i + 1]}, index, sign * word.count);
  }
}

void join(Word& word, Pair pair, int32_t id) {
  size_t out = 0;
  for (size_t i = 0; i < word.ids.size(); ++i) {
    const bool here =
        i + 1 < word.ids.size() && word.ids[i] == pair.first && word.ids[i + 1] == pair.second;
    word.ids[out++] = here ? id : word.ids[i];
    if (here) ++i;
  }
  word.ids.resize(out);
}

Json added_token_json(const AddedToken& token, bool with_id) {
  Json json = Json::object();
  if (with_id) json["id"] = token.id;
  json["content"] = token.content;
  json["single_word"] = false;
  json["lstrip"] = token.lstrip;
  json["rstrip"] = token.rstrip;
  json["normalized"] = token.normalized;
  json["special"] = token.special;
  return json;
}

Json tokenizer_json(const TrainedBpe& bpe, const Json& vocab) {
  Json added = Json::array(), merges = Json::array();
  for (const auto& token : bpe.added) added.push_back(added_token_json(token, true));
  for (const auto& [left, right] : bpe.merges) {
    merges.push_back({to_byte_alphabet(bpe.pieces[left]), to_byte_alphabet(bpe.pieces[right])});
  }
  const Json level = {{"type", "ByteLevel"},
                      {"add_prefix_space", false},
                      {"trim_offsets", false},
                      {"use_regex", false}};
  const Json split = {{"type", "Split"},
                      {"pattern", {{"Regex", PiecePattern::regex_of(PiecePattern::Kind::kQwen2)}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  Json model = {{"type", "BPE"},
                {"dropout", nullptr},
                {"unk_token", nullptr},
                {"continuing_subword_prefix", ""},
                {"end_of_word_suffix", ""},
                {"fuse_unk", false},
                {"byte_fallback", false},
                {"ignore_merges", false}};
  model["vocab"] = vocab;
  model["merges"] = std::move(merges);
  Json root = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
  root["added_tokens"] = std::move(added);
  root["normalizer"] = {{"type", "NFC"}};
  root["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", Json::array({split, level})}};
  root["post_processor"] = level;
  root["decoder"] = level;
  root["model"] = std::move(model);
  return root;
}

Json tokenizer_config(const TrainedBpe& bpe) {
  Json decoder = Json::object();
  for (const auto& token : bpe.added) {
    decoder[std::to_string(token.id)] = added_token_json(token, false);
  }
  return {{"tokenizer_class", "Qwen2Tokenizer"},
          {"add_bos_token", false},
          {"add_prefix_space", false},
          {"bos_token", nullptr},
          {"eos_token", "<|im_end|>"},
          {"pad_token", "<|endoftext|>"},
          {"unk_token", nullptr},
          {"errors", "replace"},
          {"model_max_length", 131072},
          {"clean_up_tokenization_spaces", false},
          {"split_special_tokens", false},
          {"added_tokens_decoder", decoder}};
}

}  // namespace

TrainedBpe train_bpe(std::span<const std::string> texts, int64_t size) {
  require<UsageError>(size >= 256 && size < (1 << 20), "a byte-level vocabulary has 256 to ",
                      (1 << 20) - 1, " entries, not ", size);
  std::vector<Word> words = count_words(texts);
  PairCounts pairs;
  for (size_t i = 0; i < words.size(); ++i) count_pairs(words[i], i, 1, pairs);
  pairs.settle();

  TrainedBpe bpe;
  for (const uint8_t byte : bytes_in_alphabet_order()) {
    bpe.pieces.emplace_back(1, static_cast<char>(byte));
  }
  // Two different pairs may spell the same bytes; the second is left out, an id has one spelling.
  std::set<std::string> spelled(bpe.pieces.begin(), bpe.pieces.end());
  Pair pair;
  std::set<size_t> where;
  while (static_cast<int64_t>(bpe.pieces.size()) < size && pairs.pop(pair, where)) {
    std::string bytes = bpe.pieces[pair.first] + bpe.pieces[pair.second];
    if (!spelled.insert(bytes).second) continue;
    const auto id = static_cast<int32_t>(bpe.pieces.size());
    for (const size_t i : where) {
      count_pairs(words[i], i, -1, pairs);
      join(words[i], pair, id);
      count_pairs(words[i], i, 1, pairs);
    }
    pairs.settle();
    bpe.merges.push_back(pair);
    bpe.pieces.push_back(std::move(bytes));
  }
  bpe.added = qwen2_5_added_tokens(static_cast<int32_t>(bpe.pieces.size()));
  return bpe;
}

void save_tokenizer(const TrainedBpe& bpe, const std::filesystem::path& folder) {
  make_folders(folder);
  auto vocab = Json::object();
  auto& members = vocab.get_ref<Json::object_t&>();
  std::string merges = "#version: 0.2\n";
  for (size_t id = 0; id < bpe.pieces.size(); ++id) {
    members.emplace_back(to_byte_alphabet(bpe.pieces[id]), id);
  }
  for (const auto& [left, right] : bpe.merges) {
    merges += to_byte_alphabet(bpe.pieces[left]) + " " + to_byte_alphabet(bpe.pieces[right]) + "\n";
  }
  write_file_atomically(folder / "vocab.json", dump_json(vocab));
  write_file_atomically(folder / "merges.txt", merges);
  write_file_atomically(folder / "tokenizer.json", dump_json(tokenizer_json(bpe, vocab), 1));
  write_file_atomically(folder / "tokenizer_config.json", dump_json(tokenizer_config(bpe), 1));
}

}  // namespace triptych
