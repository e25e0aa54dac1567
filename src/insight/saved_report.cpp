#include <algorithm>
#include <set>

#include "base/error.h"
#include "insight/assets.h"
#include "insight/gzip.h"
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
constexpr size_t kTileBudget = 12 << 20;  // bytes before packing, which halves them

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

/// The busiest tracks, in the order of their ids.
std::vector<uint32_t> chosen_tracks(const Json& tracks) {
  std::vector<TrackCount> all;
  for (const Json& rank : tracks.value("ranks", Json::array())) {
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

/// Tiles of the coarsest level, then finer ones while there is room.
void add_timeline(const Run& run, Json& documents, Json& binary) {
  const Json tracks = tracks_json(run);
  const int64_t begin = tracks.value("begin_ns", int64_t{0}),
                end = tracks.value("end_ns", int64_t{0});
  TileRequest request;
  request.tracks = chosen_tracks(tracks);
  if (request.tracks.empty() || end <= begin) return;
  uint32_t level = 0;
  while (((end - begin) >> level) > 1024) ++level;
  std::set<uint32_t> levels;
  size_t bytes = 0;
  for (const uint32_t finer : {0U, 2U, 4U, 6U}) {
    if (finer > level) break;
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
  documents["report"] = {{"levels", levels}, {"tracks", request.tracks}};
  std::vector<int> files;
  for (const uint32_t track : request.tracks) files.push_back(static_cast<int>(track >> 16));
  files.erase(std::unique(files.begin(), files.end()), files.end());
  for (const int file : files) {
    documents[key("strings", {{"file", std::to_string(file)}, {"from", "0"}})] =
        strings_json(run, file, 0);
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
  add_timeline(queries.run(), documents, binary);

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
