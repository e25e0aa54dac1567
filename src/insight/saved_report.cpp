#include <algorithm>
#include <set>

#include "base/error.h"
#include "insight/assets.h"
#include "insight/gzip.h"
#include "insight/report_events.h"
#include "insight/timeline.h"
#include "insight/viewer_state.h"

namespace triptych::insight {
namespace {

// The page asks a saved report the same questions as a server; here stands which ones it can ask
// when nothing was chosen, and the answers go under "path?name=value&..." with the names sorted.

struct Question {
  std::string path;
  std::map<std::string, std::string> params;  ///< as the page asks
  int64_t limit = 0;                          ///< fewer rows than the page would like; 0: as asked
};

constexpr int64_t kTableRows = 1000;
constexpr size_t kTracks = 64;
constexpr size_t kMostPlaces = 200;       // events that findings lead to; a few KB each
constexpr size_t kTileBudget = 12 << 20;  // bytes before packing, which halves them
constexpr uint32_t kFinestTiles = 6;      // levels finer than the coarsest
constexpr uint32_t kCurvePoints = 2000;   // of a counter, over all the time

std::vector<Question> questions(bool baseline) {
  const std::string many = "20000";
  std::vector<Question> list = {
      {"info", {}},
      {"runs", {}},
      {"tracks", {}},
      {"findings", {}},
      {"diagnostics", {}},
      {"metrics", {}},
      {"summary", {{"by", "rank"}}},
      {"summary", {{"by", "step"}}},
      {"ops", {{"group", "name"}, {"limit", many}}, kTableRows},
      {"kernels", {{"limit", many}}, kTableRows},
      {"modules", {{"limit", many}}, kTableRows},
      {"comm/matrix", {}},
      {"comm/ranks", {}},
      {"comm/links", {}},
      {"comm/groups", {}},
      {"comm/alignment", {}},
      {"comm/calls", {{"limit", many}}, kTableRows},
      {"parallel/layout", {}},
      {"pipeline", {}},
      {"critical_path", {}},
      {"idle", {}},
      {"flame", {}},
      {"flame", {{"by", "modules"}}},
      {"memory/curve", {{"points", "1000"}}},
      {"memory/categories", {}},
      {"memory/peak", {}},
      {"memory/allocations", {{"limit", many}}, kTableRows},
      {"memory/snapshot", {{"number", "0"}}},
  };
  if (!baseline) return list.push_back({"diff", {{"table", "summary"}}}), list;
  for (const char* table : {"summary", "ops", "kernels", "modules", "comm"})
    list.push_back({"diff", {{"table", table}}});
  return list;
}

std::string key(const std::string& path, const std::map<std::string, std::string>& params) {
  std::string text = path;
  char separator = '?';
  for (const auto& [name, value] : params) {
    text += separator + name + '=' + value;
    separator = '&';
  }
  return text;
}

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    for (size_t j = 0; j < 3; ++j)
      group = group << 8 | (i + j < bytes.size() ? static_cast<uint8_t>(bytes[i + j]) : 0);
    for (size_t j = 0; j < 4; ++j)
      text += i + j <= bytes.size() ? kDigits[group >> (18 - 6 * j) & 63] : '=';
  }
  return text;
}

std::string joined(const std::vector<uint32_t>& values) {
  std::string text;
  for (const uint32_t value : values) text += (text.empty() ? "" : ",") + std::to_string(value);
  return text;
}

struct TrackCount {
  int64_t count = 0;
  uint32_t id = 0;
};

/// The busiest tracks of the files that are not in `held`, in the order of their ids.
std::vector<uint32_t> chosen_tracks(const Json& tracks, const std::vector<int>& held) {
  std::vector<TrackCount> all;
  for (const Json& rank : tracks.value("ranks", Json::array())) {
    if (std::ranges::find(held, rank.value("file", -1)) != held.end()) continue;
    for (const Json& process : rank.value("processes", Json::array())) {
      for (const Json& track : process.value("tracks", Json::array())) {
        if (track.value("kind", "") != "counter")
          all.push_back({track.value("count", int64_t{0}), track.value("id", 0U)});
      }
    }
  }
  std::ranges::stable_sort(all, std::ranges::greater(), &TrackCount::count);
  if (all.size() > kTracks) all.resize(kTracks);
  std::vector<uint32_t> ids;
  for (const TrackCount& track : all) ids.push_back(track.id);
  std::ranges::sort(ids);
  return ids;
}

/// Tiles of these tracks at the coarsest level, then at finer ones, while there is room and buckets
/// are longer than 256 ns: {"levels","tracks"}, what the page can ask for.
Json add_tiles(const Run& run, std::vector<uint32_t> tracks, int64_t begin, int64_t end,
               Json& binary) {
  TileRequest request;
  request.tracks = std::move(tracks);
  uint32_t level = 0;
  while (((end - begin) >> level) > 1024) ++level;
  std::set<uint32_t> levels;
  size_t bytes = 0;
  for (uint32_t finer = 0; finer <= kFinestTiles && finer + 8 <= std::max(level, 8U); finer += 2) {
    request.level = level - finer;
    const int64_t span = int64_t{512} << request.level;
    std::map<std::string, std::string> tiles;
    size_t here = 0;
    for (int64_t tile = begin / span; tile <= end / span && bytes + here < kTileBudget; ++tile) {
      request.tiles = {tile};
      std::string answer = tiles_binary(run, request);
      here += answer.size();
      tiles.emplace(key("tiles", {{"level", std::to_string(request.level)},
                                  {"tiles", std::to_string(tile)},
                                  {"tracks", joined(request.tracks)}}),
                    base64(answer));
    }
    if (bytes + here >= kTileBudget && finer > 0) break;
    bytes += here;
    for (auto& [name, text] : tiles) binary[name] = std::move(text);
    levels.insert(request.level);
  }
  return {{"levels", levels}, {"tracks", request.tracks}};
}

/// Ranks that findings name, in their order.
std::vector<int64_t> named_ranks(const Json& documents) {
  std::vector<int64_t> ranks;
  if (!documents.contains("findings")) return ranks;
  for (const Json& finding : documents["findings"].value("findings", Json::array()))
    for (const char* member : {"rank", "src", "dst"})
      if (finding.contains(member) && finding[member].is_number_integer())
        ranks.push_back(finding[member].get<int64_t>());
  return ranks;
}

/// The timeline: events one by one of the ranks that have room, a picture of the others.
void add_timeline(const Run& run, const ViewerOptions& options, Json& documents, Json& binary) {
  const Json tracks = tracks_json(run);
  if (options.full_rank)
    require<UsageError>(run.file_of(*options.full_rank) >= 0, "insight: --full-rank ",
                        *options.full_rank, ": there is no trace of this rank");
  const std::vector<int> held =
      files_to_hold(run, options.report_events, options.full_rank, named_ranks(documents));
  Json report{{"sets", Json::array()}, {"held", Json::array()}};
  for (int c = 0; c <= static_cast<int>(Category::kSpan); ++c)
    report["categories"].push_back(category_name(static_cast<Category>(c)));
  for (int w = 0; w <= static_cast<int>(Work::kSync); ++w)
    report["works"].push_back(work_name(static_cast<Work>(w)));
  std::set<int> files(held.begin(), held.end());
  for (const int file : held) {
    report["held"].push_back(held_events(run, file));
    binary[key("events", {{"file", std::to_string(file)}})] = base64(held_columns(run, file));
  }
  const int64_t begin = tracks.value("begin_ns", int64_t{0}),
                end = tracks.value("end_ns", int64_t{0});
  std::vector<uint32_t> others = chosen_tracks(tracks, held);
  if (!others.empty() && end > begin) {
    for (const uint32_t track : others) files.insert(static_cast<int>(track >> 16));
    report["sets"].push_back(add_tiles(run, std::move(others), begin, end, binary));
  }
  for (const int file : files) {
    documents[key("strings", {{"file", std::to_string(file)}, {"from", "0"}})] =
        strings_json(run, file, 0);
  }
  documents["report"] = std::move(report);
  size_t curves = 0;
  for (const Json& rank : tracks.value("ranks", Json::array())) {
    for (const Json& process : rank.value("processes", Json::array())) {
      for (const Json& track : process.value("tracks", Json::array())) {
        if (track.value("kind", "") != "counter" || end <= begin || ++curves > kTracks) continue;
        const auto id = track.value("id", 0U);
        documents[key("counters", {{"track", std::to_string(id)}})] =
            counters_json(run, id, begin, end + 1, kCurvePoints);
      }
    }
  }
}

/// The events that the findings lead to.
void add_places(Viewer::State& state, Json& documents) {
  std::set<std::string> places;
  if (!documents.contains("findings")) return;
  for (const char* list : {"findings", "advice"})
    for (const Json& finding : documents["findings"].value(list, Json::array()))
      if (finding.contains("slice") && places.size() < kMostPlaces)
        places.insert("slice/" + std::to_string(finding["slice"].get<uint64_t>()));
  for (const std::string& path : places) {
    const HttpReply reply = answer_api(state, path, {.path = path, .params = {}});
    if (reply.status == 200) documents[path] = Json::parse(reply.body);
  }
}

}  // namespace

std::string report_html(Viewer::State& state) {
  const Queries& queries = state.ready();
  Json documents = Json::object(), binary = Json::object();
  for (const Question& question : questions(state.baseline != nullptr)) {
    HttpRequest request{.path = question.path, .params = question.params};
    if (question.limit > 0) request.params["limit"] = std::to_string(question.limit);
    const HttpReply reply = answer_api(state, question.path, request);
    if (reply.status == 200)
      documents[key(question.path, question.params)] = Json::parse(reply.body);
  }
  add_places(state, documents);
  add_timeline(queries.run(), state.options, documents, binary);

  const std::string saved =
      Json{{"documents", std::move(documents)}, {"binary", std::move(binary)}}.dump(
          -1, ' ', false, Json::error_handler_t::replace);
  std::string html =
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src "
      "'unsafe-inline'; "
      "style-src 'unsafe-inline'; img-src data:\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Triptych "
      "Insight</title>\n<style>\n";
  // Data stands in base64, so that no name in it can end the element it is in; the program and the
  // style sheet are ours and hold no end tag (a test looks).
  html += page_asset("style.css");
  html +=
      "</style>\n</head>\n<body>\n<script type=\"text/plain\" id=\"report-data\" "
      "data-packed=\"gzip\">\n";
  html += base64(gzip(saved, 6));
  html += "\n</script>\n<script>\n";
  html += page_asset("app.js");
  html += "</script>\n</body>\n</html>\n";
  return html;
}

}  // namespace triptych::insight
