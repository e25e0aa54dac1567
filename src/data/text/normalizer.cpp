#include "data/text/normalizer.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/stringpiece.h>
#include <unicode/uniset.h>

#include <algorithm>
#include <climits>

#include "base/error.h"

namespace triptych {
namespace {

void check(UErrorCode status, const char* what) {
  require(U_SUCCESS(status), "unicode normalisation: ", what, ": ", u_errorName(status));
}

const icu::Normalizer2& current_nfc() {
  static const icu::Normalizer2& nfc = [&]() -> const icu::Normalizer2& {
    UErrorCode status = U_ZERO_ERROR;
    const auto* instance = icu::Normalizer2::getNFCInstance(status);
    check(status, "no NFC data");
    return *instance;
  }();
  return nfc;
}

const icu::Normalizer2& reference_nfc() {
  static const icu::UnicodeSet known = [] {
    UErrorCode status = U_ZERO_ERROR;
    icu::UnicodeSet set(icu::UnicodeString("[:age=9.0:]"), status);
    check(status, "no age data");
    set.freeze();
    return set;
  }();
  static const icu::FilteredNormalizer2 nfc(current_nfc(), known);
  return nfc;
}

}  // namespace

std::string_view to_nfc(std::string_view text, std::string& storage) {
  // Below U+0300 (lead bytes up to 0xCB) nothing ever changes.
  const bool maybe = std::any_of(text.begin(), text.end(),
                                 [](char c) { return static_cast<unsigned char>(c) >= 0xCC; });
  if (!maybe) return text;
  require<DataError>(text.size() < INT32_MAX, "a text of ", text.size(),
                     " bytes is too long to normalise; at most 2147483646");
  const icu::StringPiece piece(text.data(), static_cast<int32_t>(text.size()));
  UErrorCode status = U_ZERO_ERROR;
  // What is NFC today was NFC in every older version: their marks only combined less.
  const bool done = current_nfc().isNormalizedUTF8(piece, status);
  check(status, "quick check");
  if (done) return text;
  storage.clear();
  icu::StringByteSink<std::string> sink(&storage);
  reference_nfc().normalizeUTF8(0, piece, sink, nullptr, status);
  check(status, "NFC");
  return storage;
}

}  // namespace triptych
