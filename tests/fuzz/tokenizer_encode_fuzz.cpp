// Any bytes through a tokenizer of bytes: malformed UTF-8 is a DataError, everything else decodes
// to what the normaliser makes of it.
#include <numeric>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "check.h"
#include "data/text/byte_alphabet.h"
#include "data/text/tokenizer.h"

namespace {

/// 256 bytes, two merges, one added token, Qwen2's pattern and NFC.
triptych::Tokenizer make() {
  using triptych::Json;
  Json vocabulary = Json::object();
  for (int byte = 0; byte < 256; ++byte)
    vocabulary[triptych::to_byte_alphabet(std::string(1, static_cast<char>(byte)))] = byte;
  vocabulary["ab"] = 256;
  vocabulary["abc"] = 257;
  const Json document = {
      {"normalizer", {{"type", "NFC"}}},
      {"pre_tokenizer",
       {{"type", "Sequence"},
        {"pretokenizers",
         {{{"type", "Split"},
           {"pattern",
            {{"Regex",
              "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
              "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}}},
           {"behavior", "Isolated"},
           {"invert", false}},
          {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}}},
      {"decoder", {{"type", "ByteLevel"}}},
      {"added_tokens", {{{"id", 258}, {"content", "<x>"}, {"special", true}}}},
      {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", {"a b", "ab c"}}}}};
  return triptych::Tokenizer::from_json(triptych::dump_json(document), "made");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto tokenizer = make();
  const auto text = as_text(data, size);
  try {
    check(tokenizer.decode(tokenizer.encode(text)) == tokenizer.normalize(text));
  } catch (const triptych::DataError&) {
    // malformed UTF-8
  }
  return 0;
}
