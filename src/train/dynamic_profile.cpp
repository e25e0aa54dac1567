#include "train/dynamic_profile.h"

#include <algorithm>
#include <cctype>

#include "base/error.h"

namespace triptych {

namespace {

/// Reads members of one object and complains with their path.
class Members {
 public:
  Members(const Json& object, std::string origin) : object_(object), origin_(std::move(origin)) {
    require<DataError>(object.is_object(), origin_, ": must be a JSON object");
  }

  bool boolean(const char* key, bool otherwise) const {
    const auto* value = find(key);
    if (value == nullptr) return otherwise;
    require<DataError>(value->is_boolean(), origin_, ": '", key, "' must be true or false");
    return value->get<bool>();
  }
  int64_t integer(const char* key, int64_t otherwise) const {
    const auto* value = find(key);
    if (value == nullptr) return otherwise;
    require<DataError>(value->is_number_integer(), origin_, ": '", key, "' must be a whole number");
    return value->get<int64_t>();
  }
  std::string text(const char* key, std::string otherwise) const {
    const auto* value = find(key);
    if (value == nullptr) return otherwise;
    require<DataError>(value->is_string(), origin_, ": '", key, "' must be a string");
    return value->get<std::string>();
  }
  const Json* find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }
  const std::string& origin() const { return origin_; }

 private:
  const Json& object_;
  std::string origin_;
};

int64_t level_of(const std::string& name, const std::string& origin) {
  constexpr const char* kNames[] = {"Level0", "Level1", "Level2"};
  for (int64_t level = 0; level < 3; ++level) {
    if (name == kNames[level]) return level;
  }
  fail<DataError>(origin, ": 'profiler_level' is \"", name, "\"; Level0, Level1 or Level2");
}

/// Whether the host is among "CPU", "NPU", "CUDA", "GPU", "XPU" in any case.
bool with_host(const Json& list, const std::string& origin) {
  require<DataError>(list.is_array(), origin, ": 'activities' must be a list");
  bool host = false;
  for (const auto& entry : list) {
    require<DataError>(entry.is_string(), origin, ": 'activities' must hold strings");
    auto name = entry.get<std::string>();
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    require<DataError>(
        name == "CPU" || name == "NPU" || name == "CUDA" || name == "GPU" || name == "XPU", origin,
        ": 'activities' holds \"", name, "\"; CPU, NPU, CUDA, GPU or XPU");
    host = host || name == "CPU";
  }
  return host;
}

std::vector<int64_t> ranks_of(const Members& members) {
  if (!members.boolean("is_rank", false)) return {-1};
  const auto* list = members.find("rank_list");
  std::vector<int64_t> ranks;
  if (list == nullptr) return ranks;
  require<DataError>(list->is_array(), members.origin(), ": 'rank_list' must be a list");
  for (const auto& rank : *list) {
    require<DataError>(rank.is_number_integer() && rank.get<int64_t>() >= 0, members.origin(),
                       ": 'rank_list' must hold ranks, whole numbers from 0 on");
    ranks.push_back(rank.get<int64_t>());
  }
  return ranks;
}

}  // namespace

Json dynamic_config(const ProfileOptions& options) {
  const bool all = options.ranks == std::vector<int64_t>{-1};
  Json ranks = Json::array();
  if (!all)
    for (const auto rank : options.ranks) ranks.push_back(rank);
  Json activities = Json::array();
  if (options.with_cpu) activities.push_back("CPU");
  activities.push_back("NPU");
  const Json level = {{"profiler_level", "Level" + std::to_string(options.level)}};
  return {{"activities", activities},
          {"prof_dir", "./"},
          {"analyse", options.analyse},
          {"record_shapes", options.record_shapes},
          {"profile_memory", options.with_memory},
          {"with_stack", options.with_stack},
          {"active", 1},
          {"warmup", 0},
          {"start_step", 0},
          {"is_rank", !all},
          {"rank_list", ranks},
          {"metadata", Json::object()},
          {"experimental_config", level}};
}

DynamicRequest read_dynamic_request(const Json& config, const std::string& origin,
                                    const ProfileOptions& options) {
  const Members members(config, origin);
  DynamicRequest request;
  request.id = members.text("request", "");
  request.stop = members.boolean("stop", false);
  const auto* active = members.find("active");
  request.steps = active != nullptr && active->is_number_integer()
                      ? std::max<int64_t>(1, active->get<int64_t>())
                      : 1;
  request.warmup = std::max<int64_t>(0, members.integer("warmup", 0));
  request.start_step = members.integer("start_step", 0);
  request.ranks = ranks_of(members);
  request.with_stack = members.boolean("with_stack", false);
  request.with_memory = members.boolean("profile_memory", false);
  request.record_shapes = members.boolean("record_shapes", false);
  request.analyse = members.boolean("analyse", false);
  if (const auto* list = members.find("activities")) request.with_cpu = with_host(*list, origin);
  request.folder = members.text("prof_dir", "");
  if (request.folder == "." || request.folder == "./") request.folder.clear();
  request.level = options.level;
  if (const auto* more = members.find("experimental_config")) {
    const Members inner(*more, origin + ": experimental_config");
    request.level = level_of(inner.text("profiler_level", "Level0"), inner.origin());
  }
  if (const auto* metadata = members.find("metadata")) {
    require<DataError>(metadata->is_object(), origin, ": 'metadata' must be a JSON object");
    if (!metadata->empty()) request.metadata = dump_json(*metadata);
  }
  return request;
}

std::filesystem::path dynamic_folder(const std::filesystem::path& output,
                                     const ProfileOptions& options) {
  return output / options.config_path;
}

}  // namespace triptych
