#include <algorithm>
#include <charconv>
#include <regex>

#include "base/error.h"
#include "insight/timeline.h"
#include "insight/tolerant_json.h"

namespace triptych::insight {
namespace {

std::string lower(std::string_view text) {
  std::string out(text.substr(0, 4096));
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  return out;
}

/// What a query asks of a name, or of an argument.
struct Query {
  std::string part;        ///< lower case, part of the name
  std::string key, value;  ///< of `key:value`
  std::optional<std::regex> pattern;
};

Query parse_query(std::string_view text) {
  require(text.size() <= 512, "search: the query has ", text.size(),
          " characters; at most 512 are allowed");
  Query query;
  if (text.size() > 2 && text.front() == '/' && text.back() == '/') {
    try {
      query.pattern.emplace(std::string(text.substr(1, text.size() - 2)),
                            std::regex::ECMAScript | std::regex::icase | std::regex::optimize);
    } catch (const std::regex_error& error) {
      fail("search: ", text, " is not a regular expression: ", error.what());
    }
    return query;
  }
  // "aten::add" has colons, too; an argument's key is followed by exactly one.
  const auto colon = text.find(':');
  if (colon != std::string_view::npos && colon > 0 && colon + 1 < text.size() &&
      text[colon + 1] != ':' && text.find("::") == std::string_view::npos) {
    query.key = text.substr(0, colon);
    query.value = text.substr(colon + 1);
    while (!query.value.empty() && query.value.front() == ' ') query.value.erase(0, 1);
  }
  query.part = lower(text);
  return query;
}

bool argument_matches(const Trace& t, EventId e, const Query& query) {
  const auto args = t.arguments(e);
  for (const auto& [key, value] : args.items()) {
    if (lower(key) != lower(query.key)) continue;
    const auto text = value.is_string()
                          ? value.get<std::string>()
                          : value.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (lower(text).find(lower(query.value)) != std::string::npos) return true;
  }
  return false;
}

}  // namespace

Json search_json(const Run& run, std::string_view text, int64_t rank, uint32_t limit,
                 std::string_view after) {
  Json matches = Json::array();
  if (text.empty()) return {{"matches", matches}, {"total", 0}, {"next", nullptr}};
  const Query query = parse_query(text);
  // `after`: file and event to go on behind.
  uint64_t from = 0;
  if (!after.empty()) std::from_chars(after.data(), after.data() + after.size(), from);
  limit = std::clamp<uint32_t>(limit, 1, 10000);
  int64_t total = 0;
  Json next = nullptr;
  constexpr int64_t kMostLooks = 20000;  // arguments are read from the file again: dear
  int64_t looks = 0;
  bool incomplete = false;
  for (size_t f = 0; f < run.files().size(); ++f) {
    const auto& file = run.files()[f];
    if (rank >= 0 && file.rank != rank) continue;
    const Trace& t = file.trace;
    std::vector<int8_t> known(t.num_strings(), -1);
    const auto name_matches = [&](StringId id) {
      auto& memo = known[id];
      if (memo < 0) {
        const auto name = t.string(id);
        memo = query.pattern ? std::regex_search(std::string(name.substr(0, 1024)), *query.pattern)
                             : lower(name).find(query.part) != std::string::npos;
      }
      return memo != 0;
    };
    for (EventId e = 0; e < t.num_events(); ++e) {
      if (t.category(e) == Category::kSpan) continue;
      bool match = name_matches(t.name_id(e));
      if (!match && !query.key.empty()) {
        if (looks >= kMostLooks)
          incomplete = true;
        else if (++looks; argument_matches(t, e, query))
          match = true;
      }
      if (!match) continue;
      ++total;
      const uint64_t id = slice_id(static_cast<int>(f), e);
      if (!after.empty() && id <= from) continue;
      if (matches.size() >= limit) {
        if (next.is_null()) next = std::to_string(matches.back()["id"].get<uint64_t>());
        continue;
      }
      matches.push_back({{"id", id},
                         {"rank", file.rank},
                         {"track", track_id(static_cast<int>(f), t.track_of(e))},
                         {"name", display_name(t.name(e))},
                         {"start_ns", run.aligned(static_cast<int>(f), t.ts(e))},
                         {"duration_ns", t.dur(e)}});
    }
  }
  Json out{{"matches", std::move(matches)}, {"total", total}, {"next", next}};
  if (incomplete)
    out["incomplete"] = "arguments of the first 20000 events were searched; choose a rank";
  return out;
}

}  // namespace triptych::insight
