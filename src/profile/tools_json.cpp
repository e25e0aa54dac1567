#include "profile/tools_json.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/format.h"

namespace triptych {

namespace {

/// One object of the file; remembers which of its keys were asked for.
class Section {
 public:
  Section(const Json* object, std::string path, std::vector<std::string>& warnings)
      : object_(object), path_(std::move(path)), warnings_(warnings) {
    require<DataError>(object_ == nullptr || object_->is_object(), path_, ": must be an object");
  }

  bool boolean(const std::string& key, bool otherwise) {
    const auto* value = find(key);
    if (value == nullptr) return otherwise;
    require<DataError>(value->is_boolean(), path_, ".", key, ": must be true or false, got ",
                       dump_json(*value));
    return value->get<bool>();
  }
  int64_t count(const std::string& key, int64_t otherwise) {
    const auto* value = find(key);
    if (value == nullptr || value->is_null()) return otherwise;
    require<DataError>(value->is_number_integer() && value->get<int64_t>() >= 0, path_, ".", key,
                       ": must be a whole number from 0 on, got ", dump_json(*value));
    return value->get<int64_t>();
  }
  std::string text(const std::string& key, const std::string& otherwise) {
    const auto* value = find(key);
    if (value == nullptr) return otherwise;
    require<DataError>(value->is_string(), path_, ".", key, ": must be a string, got ",
                       dump_json(*value));
    return value->get<std::string>();
  }
  std::vector<int64_t> ranks(const std::string& key, std::vector<int64_t> otherwise) {
    const auto* value = find(key);
    if (value == nullptr) return otherwise;
    require<DataError>(value->is_array(), path_, ".", key, ": must be a list of ranks, got ",
                       dump_json(*value));
    std::vector<int64_t> ranks;
    for (const auto& rank : *value) {
      require<DataError>(rank.is_number_integer() && rank.get<int64_t>() >= -1, path_, ".", key,
                         ": must hold ranks (or -1 alone for all), got ", dump_json(*value));
      ranks.push_back(rank.get<int64_t>());
    }
    return ranks;
  }
  Section part(const std::string& key) { return {find(key), path_ + "." + key, warnings_}; }

  /// Names what nobody asked for; other programs of that suite may read it.
  void warn_about_the_rest() const {
    if (object_ == nullptr) return;
    for (const auto& [key, value] : object_->items()) {
      if (!known_.contains(key))
        warnings_.push_back(fmt::format("{}.{}: unknown key, left out", path_, key));
    }
  }
  const std::string& path() const { return path_; }

 private:
  const Json* find(const std::string& key) {
    known_.insert(key);
    if (object_ == nullptr) return nullptr;
    const auto it = object_->find(key);
    return it == object_->end() ? nullptr : &*it;
  }

  const Json* object_;
  std::string path_;
  std::vector<std::string>& warnings_;
  std::set<std::string> known_;
};

/// [start, end) as torch_npu takes it: an empty one is one step long.
std::vector<std::vector<int64_t>> window(int64_t start, int64_t end, const std::string& path,
                                         std::vector<std::string>& warnings) {
  if (end <= start) {
    warnings.push_back(fmt::format(
        "{}: end_step {} is not above start_step {}; one step is recorded", path, end, start));
    end = start + 1;
  }
  return {{start, end}};
}

void read_static(Section part, ProfileOptions& profile, std::vector<std::string>& warnings) {
  const auto level = part.text("level", "level1");
  require<DataError>(level == "level0" || level == "level1" || level == "level2", part.path(),
                     ".level: level0, level1 or level2, got \"", level, "\"");
  profile.level = level.back() - '0';
  profile.with_stack = part.boolean("with_stack", false);
  profile.with_memory = part.boolean("with_memory", false);
  profile.record_shapes = part.boolean("record_shapes", false);
  profile.with_cpu = part.boolean("with_cpu", true);
  profile.analyse = part.boolean("analyse_flag", true);
  profile.save_path = part.text("save_path", "./npu_profiling");
  const int64_t start = part.count("start_step", 10), end = part.count("end_step", 11);
  profile.windows = window(start, end, part.path(), warnings);
  part.boolean("data_simplification", false);  // nothing but the trace is ever left
  const auto metrics = part.text("aic_metrics_type", "PipeUtilization");
  require<DataError>(metrics == "PipeUtilization" || metrics == "ArithmeticUtilization",
                     part.path(),
                     ".aic_metrics_type: PipeUtilization or ArithmeticUtilization, "
                     "got \"",
                     metrics, "\"");
  if (metrics != "PipeUtilization")
    warnings.push_back(part.path() + ".aic_metrics_type: selects nothing on this device");
  part.warn_about_the_rest();
}

void read_profile(Section part, ProfileOptions& profile, std::vector<std::string>& warnings) {
  if (!part.boolean("enable", false)) return;
  const auto type = part.text("profile_type", "static");
  require<DataError>(type == "static" || type == "dynamic", part.path(),
                     ".profile_type: static or dynamic, got \"", type, "\"");
  profile.ranks = part.ranks("ranks", {0, 1, 2, 3});
  auto fixed = part.part("static_param"), dynamic = part.part("dynamic_param");
  if (type == "static") {
    profile.mode = ProfileMode::kStatic;
    read_static(std::move(fixed), profile, warnings);
  } else {
    profile.mode = ProfileMode::kDynamic;
    profile.config_path = dynamic.text("config_path", "");
    require<DataError>(!profile.config_path.empty(), dynamic.path(),
                       ".config_path: is not set; the folder to watch");
    dynamic.warn_about_the_rest();
  }
  part.warn_about_the_rest();
}

void read_memory(Section part, ProfileMemoryOptions& memory, std::vector<std::string>& warnings) {
  if (!part.boolean("enable", false)) return;
  const int64_t start = part.count("start_step", 0), end = part.count("end_step", 2);
  memory.windows = window(start, end, part.path(), warnings);
  memory.save_path = part.text("save_path", "./memory_snapshot");
  memory.ranks = part.ranks("dump_ranks", {0});
  part.text("stacks", "all");  // selects nothing, docs/spec/profiling_and_insight.md 1.4
  memory.max_entries = part.count("max_entries", 0);
  memory.print_peaks = part.boolean("mem_info", false);
  part.warn_about_the_rest();
}

}  // namespace

ToolsJson read_tools_json(const Json& json, const std::string& origin) {
  ToolsJson result;
  Section root(&json, origin, result.warnings);
  read_profile(root.part("profile"), result.profile, result.warnings);
  read_memory(root.part("memory_profile"), result.profile.memory, result.warnings);
  root.part("sorafeature");  // features are cached by the run file's [diffusion]
  root.warn_about_the_rest();
  return result;
}

}  // namespace triptych
