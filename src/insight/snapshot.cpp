#include "insight/snapshot.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/files.h"
#include "base/format.h"
#include "insight/pickle.h"
#include "insight/snapshot_curve.h"

namespace triptych::insight {
namespace {

int64_t whole(const Json& object, const char* key) {
  if (!object.is_object() || !object.contains(key) || !object[key].is_number()) return 0;
  if (object[key].is_number_float())
    return static_cast<int64_t>(std::clamp(object[key].get<double>(), -9e18, 9e18));
  return object[key].get<int64_t>();
}
std::string word(const Json& object, const char* key) {
  return object.is_object() && object.contains(key) && object[key].is_string()
             ? object[key].get<std::string>()
             : "";
}
const Json& list(const Json& object, const char* key) {
  static const Json kEmpty = Json::array();
  return object.is_object() && object.contains(key) && object[key].is_array() ? object[key]
                                                                              : kEmpty;
}

/// The first frame that says something: not the allocator's own.
std::string frame_of(const Json& holder) {
  for (const auto& frame : list(holder, "frames")) {
    const auto name = word(frame, "name");
    if (name.empty() || name.find("malloc") != std::string::npos ||
        name.find("allocate") != std::string::npos)
      continue;
    const auto file = word(frame, "filename");
    return (name + (file.empty() || file == "??"
                        ? ""
                        : " (" + file + ":" + std::to_string(whole(frame, "line")) + ")"))
        .substr(0, 240);
  }
  return "";
}

}  // namespace

Json snapshot_json(const std::filesystem::path& path) {
  constexpr uint64_t kMost = 4ull << 30;
  Json data;
  if (path.extension() == ".json") {
    data = read_json(path, {.bytes = size_t{1} << 30, .depth = 64});
  } else {
    require(std::filesystem::file_size(path) <= kMost, path.string(),
            ": a snapshot of more than 4 GiB");
    const MappedFile file(path);
    data = read_pickle(file.text(), path.filename().string());
  }
  require<DataError>(
      data.is_object() && (data.contains("segments") || data.contains("device_traces")),
      path.string(), ": is no memory snapshot: it has neither segments nor device_traces");
  std::map<int64_t, Json> devices;
  std::map<std::string, std::pair<int64_t, int64_t>> frames;
  std::map<std::string, int64_t> categories;
  for (const auto& s : list(data, "segments")) {
    auto& device = devices[whole(s, "device")];
    if (device.is_null())
      device = {{"device", whole(s, "device")},
                {"reserved", 0},
                {"allocated", 0},
                {"largest_free", 0},
                {"segments", Json::array()}};
    Json blocks = Json::array();
    int64_t address = whole(s, "address"), largest = 0;
    for (const auto& b : list(s, "blocks")) {
      const auto state = word(b, "state");
      const int64_t size = whole(b, "size");
      if (b.contains("address")) address = whole(b, "address");
      const auto frame = frame_of(b);
      if (state == "inactive") {
        largest = std::max(largest, size);
      } else {
        auto& [bytes, count] = frames[frame.empty() ? "(no stack)" : frame];
        bytes += size, ++count;
        if (const auto category = word(b, "category"); !category.empty())
          categories[category] += size;
      }
      blocks.push_back({{"address", fmt::format("0x{:x}", static_cast<uint64_t>(address))},
                        {"size", size},
                        {"requested", whole(b, "requested_size")},
                        {"state", state},
                        {"frame", frame}});
      address += size;
    }
    device["reserved"] = device["reserved"].get<int64_t>() + whole(s, "total_size");
    device["allocated"] = device["allocated"].get<int64_t>() + whole(s, "allocated_size");
    device["largest_free"] = std::max(device["largest_free"].get<int64_t>(), largest);
    device["segments"].push_back(
        {{"address", fmt::format("0x{:x}", static_cast<uint64_t>(whole(s, "address")))},
         {"total", whole(s, "total_size")},
         {"allocated", whole(s, "allocated_size")},
         {"requested", whole(s, "requested_size")},
         {"type", word(s, "segment_type")},
         {"stream", whole(s, "stream")},
         {"blocks", std::move(blocks)}});
  }
  Json timeline = Json::array();
  size_t events = 0;
  for (const auto& trace : list(data, "device_traces")) {
    if (!trace.is_array() || trace.empty()) continue;
    int64_t now = 0, number = 0;
    const auto every = static_cast<int64_t>(trace.size() / 20000 + 1);
    for (const auto& e : trace) {
      ++events;
      const auto action = word(e, "action");
      if (action == "alloc")
        now += whole(e, "size");
      else if (action == "free_completed" || action == "free")
        now -= whole(e, "size");
      else
        continue;
      if (number++ % every == 0)
        timeline.push_back({{"t_us", whole(e, "time_us")}, {"allocated", now}});
    }
  }
  std::vector<std::pair<std::string, std::pair<int64_t, int64_t>>> order(frames.begin(),
                                                                         frames.end());
  std::ranges::stable_sort(order, std::ranges::greater(),
                           [](const auto& f) { return f.second.first; });
  Json by_frame = Json::array();
  for (size_t i = 0; i < order.size() && i < 100; ++i)
    by_frame.push_back({{"frame", order[i].first},
                        {"bytes", order[i].second.first},
                        {"count", order[i].second.second}});
  Json list_of_devices = Json::array();
  for (auto& [number, device] : devices) list_of_devices.push_back(std::move(device));
  auto history = snapshot_history(data, 2000);
  Json about = data.value("triptych", Json::object());
  return {{"path", path.string()},
          {"about", about.is_object() ? std::move(about) : Json::object()},
          {"curve", std::move(history["curve"])},
          {"peak", std::move(history["peak"])},
          {"devices", std::move(list_of_devices)},
          {"timeline", std::move(timeline)},
          {"events", events},
          {"by_frame", by_frame},
          {"rows", by_frame},
          {"categories", categories}};
}

}  // namespace triptych::insight
