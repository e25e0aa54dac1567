#include "equality_rows.h"

#include <algorithm>
#include <sstream>
#include <stdexcept>

namespace triptych {

namespace {

const std::string kTargetsQwen =
    R"(["q_proj","k_proj","v_proj","o_proj","up_proj","down_proj","qkv"])";
const std::string kTargetsVideo = R"(["q","qkv","attn.out","mlp.down","linear","video"])";

std::string lora(TinyModel model) {
  return "model.lora.rank=4 model.lora.alpha=8 model.lora.dropout=0.2 model.lora.targets=" +
         (model == TinyModel::kQwen ? kTargetsQwen : kTargetsVideo);
}

struct Word {
  const char* word;
  const char* technique;  ///< what it makes a row one of; empty: nothing of its own
  int processes;
  const char* set;
  const char* instead = "";  ///< the technique that it takes the place of
};

constexpr Word kWords[] = {
    {"data 2", "data", 2, ""},
    {"data 4", "data", 4, ""},
    {"tensor 2", "tensor", 2, "parallel.tensor=2"},
    {"tensor 4", "tensor", 4, "parallel.tensor=4"},
    {"sequence", "tensor with sequence", 1, "parallel.sequence=true", "tensor"},
    {"pipeline 2", "pipeline", 2, "parallel.pipeline=2"},
    {"pipeline 4", "pipeline", 4, "parallel.pipeline=4"},
    {"virtual 2", "virtual pipeline", 1, "parallel.virtual=2", "pipeline"},
    {"virtual 3", "virtual pipeline", 1, "parallel.virtual=3", "pipeline"},
    {"zero bubble", "zero bubble", 1, "parallel.schedule=zb_h1", "pipeline"},
    {"ulysses 2", "ulysses", 2, "parallel.context=2"},
    {"ulysses 4", "ulysses", 4, "parallel.context=4"},
    {"ring 2", "ring", 2, "parallel.context=2 parallel.context_algorithm=ring"},
    {"ring 4", "ring", 4, "parallel.context=4 parallel.context_algorithm=ring"},
    {"hybrid 2 x 2", "hybrid", 4,
     "parallel.context=4 parallel.context_algorithm=hybrid parallel.ulysses_degree=2"},
    {"dsp 2", "ulysses", 2, "parallel.context=2 parallel.context_algorithm=dsp"},
    {"dsp 4", "ulysses", 4, "parallel.context=4 parallel.context_algorithm=dsp"},
    {"dsp vision", "dsp", 1, "parallel.vision_context=dsp"},
    {"pictures", "", 1, "parallel.vision_context=pictures"},
    {"all pictures everywhere", "", 1,
     "parallel.vision_context=pictures parallel.balance_vision=none"},
    {"zero 0", "ZeRO-0", 1, "parallel.zero=0"},
    {"zero 1", "ZeRO-1", 1, "parallel.zero=1"},
    {"zero 2", "ZeRO-2", 1, "parallel.zero=2"},
    {"zero 3", "ZeRO-3", 1, "parallel.zero=3"},
    {"zero groups of 2", "", 1, "parallel.zero_group=2"},
    {"recompute", "recompute", 1, "recompute.policy=full"},
    {"recompute in groups", "recompute", 1,
     "recompute.policy=full recompute.method=uniform recompute.layers=2"},
    {"recompute keeping attention", "recompute", 1,
     "recompute.policy=full recompute.keep_attention=true"},
    {"selective recompute", "", 1,
     R"(recompute.policy=selective recompute.modules=["norm","qkv_rope","mlp_act"])"},
    {"offload", "", 1, "recompute.offload=true recompute.offload_min_bytes=1"},
    {"pictures over data", "", 1, "parallel.balance_vision=data"},
    {"frozen vision", "frozen part", 1, R"(model.freeze=["vision","projector"])"},
    {"frozen text", "frozen part", 1, R"(model.freeze=["text"])"},
    {"lora", "LoRA", 1, ""},
    {"tied", "tied head", 1, "tiny.tied=true"},
    {"one key/value head", "", 1, "tiny.key_value_heads=1"},
    {"four packs a micro-batch", "", 1, "train.micro_batch=4"},
    {"other order", "", 1, R"(parallel.order=["data","tensor","context","pipeline"])"},
};

/// Of these a layout has one at most.
const std::vector<std::set<std::string>> kExclusive = {
    {"tensor", "tensor with sequence"},
    {"pipeline", "virtual pipeline", "zero bubble"},
    {"ulysses", "ring", "hybrid"},
    {"ZeRO-0", "ZeRO-1", "ZeRO-2", "ZeRO-3"},
    {"LoRA", "tied head"},  // adapters train no head
};
const std::set<std::string> kTrainLess = {"LoRA", "frozen part"};

std::vector<std::string> words_of(const std::string& name) {
  std::vector<std::string> words;
  for (size_t begin = 0; begin <= name.size();) {
    const auto end = std::min(name.find(", ", begin), name.size());
    auto word = name.substr(begin, end - begin);
    word = word.substr(0, word.find(" ("));
    words.push_back(std::move(word));
    begin = end + 2;
  }
  return words;
}

const Word& find(const std::string& word) {
  const auto* const it = std::find_if(std::begin(kWords), std::end(kWords),
                                      [&](const Word& w) { return w.word == word; });
  if (it == std::end(kWords)) throw std::invalid_argument("equality row: no word '" + word + "'");
  return *it;
}

void append(std::vector<std::string>& set, const std::string& assignments) {
  std::istringstream in(assignments);
  for (std::string one; in >> one;) set.push_back(one);
}

bool can_stand_together(const std::string& a, const std::string& b) {
  return std::none_of(kExclusive.begin(), kExclusive.end(),
                      [&](const auto& group) { return group.contains(a) && group.contains(b); });
}

using Pairs = std::set<TechniquePair>;

Pairs pairs_of(const std::set<std::string>& techniques) {
  Pairs pairs;
  for (auto a = techniques.begin(); a != techniques.end(); ++a)
    for (auto b = std::next(a); b != techniques.end(); ++b) pairs.emplace(*a, *b);
  return pairs;
}

/// Those that a row counts for.
Pairs covered_by(const EqualityRow& row) {
  auto all = techniques(row);
  auto pairs = pairs_of(all);
  for (const auto& less : kTrainLess) {
    if (!all.contains(less)) continue;
    std::erase_if(pairs, [&](const auto& p) { return p.first != less && p.second != less; });
  }
  return pairs;
}

Pairs wanted_pairs(TinyModel model) {
  std::set<std::string> all;
  for (const auto* rows : {&covering_rows(), &further_rows()}) {
    for (const auto& row : *rows)
      if (row.model == model) all.merge(techniques(row));
  }
  auto pairs = pairs_of(all);
  std::erase_if(pairs, [](const auto& p) { return !can_stand_together(p.first, p.second); });
  return pairs;
}

}  // namespace

EqualityRow layout(const std::string& words, TinyModel model, const std::string& more) {
  EqualityRow row{.name = words, .model = model};
  for (const auto& text : words_of(words)) {
    const auto& word = find(text);
    row.processes *= word.processes;
    append(row.set, text == "lora" ? lora(model) : word.set);
  }
  append(row.set, more);
  return row;
}

std::set<std::string> techniques(const EqualityRow& row) {
  std::set<std::string> result;
  bool context = false;
  for (const auto& text : words_of(row.name)) {
    const auto& word = find(text);
    result.erase(word.instead);
    if (*word.technique != '\0') result.insert(word.technique);
    context = context || std::string_view(word.set).starts_with("parallel.context=");
  }
  // States are sharded over data x context; the video model attends by axes in every layout.
  const bool other = std::any_of(result.begin(), result.end(),
                                 [](const auto& t) { return t.starts_with("ZeRO-"); });
  if ((context || result.contains("data")) && !other) result.insert("ZeRO-1");
  if (context && row.model == TinyModel::kVideo) result.insert("dsp");
  return result;
}

std::vector<TechniquePair> missing_pairs(TinyModel model) {
  auto left = wanted_pairs(model);
  for (const auto& row : covering_rows()) {
    if (row.model != model) continue;
    for (const auto& pair : covered_by(row)) left.erase(pair);
  }
  return {left.begin(), left.end()};
}

size_t count_pairs(TinyModel model) { return wanted_pairs(model).size(); }

}  // namespace triptych
