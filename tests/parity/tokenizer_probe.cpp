// Compares ids and decoded text with what the reference wrote down.
//
//   tokenizer_probe (--json FILE | --folder FOLDER | --ranks FILE) CASES
//   tokenizer_probe --train FOLDER TEXT     trains 600 entries on the lines of a file, saves FOLDER
//
// CASES: for each text, little-endian: bytes (u32), text, count (u32), ids (i32), bytes (u32), text
// that the reference decodes the ids to. Prints the first differences; status 1 when there are any.

#include <cstdio>
#include <cstring>
#include <string>

#include "base/error.h"
#include "base/files.h"
#include "data/text/bpe_trainer.h"
#include "data/text/tokenizer.h"

namespace triptych {
namespace {

Tokenizer load(const std::string& form, const std::string& path) {
  if (form == "--json") return Tokenizer::from_json_file(path);
  if (form == "--folder") return Tokenizer::from_folder(path);
  require<UsageError>(form == "--ranks", "form '", form, "' is not --json, --folder or --ranks");
  return Tokenizer::from_rank_file(path, qwen2_5_added_tokens(151643));
}

class Cases {
 public:
  explicit Cases(std::string_view bytes) : rest_(bytes) {}
  bool done() const { return rest_.empty(); }
  std::string_view text() { return take(number()); }
  std::vector<int32_t> ids() {
    const uint32_t count = number();
    const auto bytes = take(count * sizeof(int32_t));
    std::vector<int32_t> ids(count);
    std::memcpy(ids.data(), bytes.data(), bytes.size());
    return ids;
  }

 private:
  uint32_t number() {
    uint32_t value = 0;
    std::memcpy(&value, take(sizeof(value)).data(), sizeof(value));
    return value;
  }
  std::string_view take(size_t n) {
    require<DataError>(n <= rest_.size(), "the file of cases ends early");
    const auto found = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return found;
  }
  std::string_view rest_;
};

std::string shown(const std::vector<int32_t>& ids) {
  std::string out;
  for (const int32_t id : ids) out += " " + std::to_string(id);
  return out;
}

/// The same text in steps, as `generate` prints it.
std::string streamed(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  StreamingDecoder decoder(tokenizer);
  std::string text;
  for (const int32_t id : ids) text += decoder.add(id);
  return text + decoder.finish();
}

int compare(const Tokenizer& tokenizer, std::string_view file) {
  int64_t number = 0, wrong = 0, tokens = 0;
  for (Cases cases(file); !cases.done(); ++number) {
    const auto text = cases.text();
    const auto want = cases.ids();
    const auto want_text = cases.text();
    const auto got = tokenizer.encode(text);
    const auto got_text = tokenizer.decode(want);
    tokens += static_cast<int64_t>(want.size());
    if (got == want && got_text == want_text && streamed(tokenizer, want) == want_text) continue;
    if (++wrong <= 10) {
      std::printf("case %ld: '%.*s'\n  want%s\n  got %s\n  decoded %s\n", static_cast<long>(number),
                  static_cast<int>(text.size()), text.data(), shown(want).c_str(),
                  shown(got).c_str(), got_text == want_text ? "equal" : got_text.c_str());
    }
  }
  std::printf("%ld of %ld texts differ, %ld tokens\n", static_cast<long>(wrong),
              static_cast<long>(number), static_cast<long>(tokens));
  return wrong == 0 ? 0 : 1;
}

int train(const std::string& folder, std::string_view file) {
  std::vector<std::string> lines;
  while (!file.empty()) {
    const size_t end = std::min(file.find('\n'), file.size());
    lines.emplace_back(file.substr(0, end));
    file.remove_prefix(std::min(end + 1, file.size()));
  }
  save_tokenizer(train_bpe(lines, 600), folder);
  return 0;
}

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  try {
    triptych::require<triptych::UsageError>(argc == 4, "usage: tokenizer_probe FORM PATH CASES");
    const triptych::MappedFile cases(argv[3]);
    if (std::string_view(argv[1]) == "--train") return triptych::train(argv[2], cases.text());
    return triptych::compare(triptych::load(argv[1], argv[2]), cases.text());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
