#include "checkpoint/regex_match.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <memory>
#include <string>

#include "base/error.h"

namespace triptych {
namespace {

constexpr uint32_t kMostSteps = 1'000'000;
constexpr uint32_t kMostHeapKilobytes = 16 << 10;

std::string words_for(int error) {
  unsigned char text[160] = {};
  pcre2_get_error_message(error, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

PCRE2_SPTR units(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

bool regex_full_match(std::string_view pattern, std::string_view text, std::string_view origin) {
  int error = 0;
  PCRE2_SIZE at = 0;
  const std::unique_ptr<pcre2_code, decltype(&pcre2_code_free)> code(
      pcre2_compile(units(pattern), pattern.size(), PCRE2_ANCHORED | PCRE2_ENDANCHORED, &error, &at,
                    nullptr),
      pcre2_code_free);
  require<DataError>(code != nullptr, origin, ": the pattern \"", pattern,
                     "\" is wrong at character ", at + 1, ": ", words_for(error));
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  const std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> limits(
      pcre2_match_context_create(nullptr), pcre2_match_context_free);
  pcre2_set_match_limit(limits.get(), kMostSteps);
  pcre2_set_heap_limit(limits.get(), kMostHeapKilobytes);
  const int found =
      pcre2_match(code.get(), units(text), text.size(), 0, 0, data.get(), limits.get());
  require<DataError>(found >= 0 || found == PCRE2_ERROR_NOMATCH, origin, ": the pattern \"",
                     pattern, "\" cannot be matched against '", text, "': ", words_for(found));
  return found >= 0;
}

}  // namespace triptych
