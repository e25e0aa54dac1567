#include "parallel/rank_comparison.h"

#include <torch/version.h>

#include <map>

#include "base/error.h"
#include "base/format.h"
#include "base/hash.h"
#include "parallel/group_host.h"

namespace triptych {

namespace {

constexpr int kProtocol = 1;

/// Leaves of a tree by dotted path.
void flatten(const Json& value, const std::string& path, std::map<std::string, std::string>& out) {
  if (!value.is_object() || value.empty()) {
    out[path] = dump_json(value);
    return;
  }
  for (const auto& [key, child] : value.items()) {
    flatten(child, path.empty() ? key : path + "." + key, out);
  }
}

std::string ranks_text(const std::vector<int64_t>& ranks) {
  std::string text = ranks.size() == 1 ? "rank" : "ranks";
  for (size_t i = 0; i < ranks.size(); ++i) {
    text += fmt::format("{} {}", i == 0 ? "" : ",", ranks[i]);
  }
  return text;
}

}  // namespace

std::string describe_differences(const std::vector<Json>& by_rank) {
  std::vector<std::map<std::string, std::string>> flat(by_rank.size());
  std::map<std::string, bool> keys;
  for (size_t r = 0; r < by_rank.size(); ++r) {
    flatten(by_rank[r], "", flat[r]);
    for (const auto& [key, value] : flat[r]) keys[key] = true;
  }
  std::string text;
  for (const auto& [key, unused] : keys) {
    std::vector<std::pair<std::string, std::vector<int64_t>>> values;  // by first rank
    for (size_t r = 0; r < flat.size(); ++r) {
      const auto it = flat[r].find(key);
      const auto value = it == flat[r].end() ? std::string("nothing") : it->second;
      auto found = std::find_if(values.begin(), values.end(),
                                [&](const auto& entry) { return entry.first == value; });
      if (found == values.end()) found = values.insert(values.end(), {value, {}});
      found->second.push_back(static_cast<int64_t>(r));
    }
    if (values.size() == 1) continue;
    text += fmt::format("\n  {}:", key);
    for (size_t i = 0; i < values.size(); ++i) {
      text += fmt::format("{} {} on {}", i == 0 ? "" : ";", values[i].first,
                          ranks_text(values[i].second));
    }
  }
  return text;
}

std::string RankComparison::wait_and_get(const std::string& key) {
  try {
    store_->wait({key}, timeout_);
    return store_->get_to_str(key);
  } catch (const std::exception& error) {
    fail<PeerError>("start-up check: no answer for '", key, "': ", message_of(error));
  }
}

std::string RankComparison::run(const Self& self) {
  const auto configuration = dump_json(self.configuration);
  const Json identity = {{"protocol", kProtocol},
                         {"version", self.version},
                         {"libtorch", TORCH_VERSION},
                         {"device", self.device},
                         {"configuration", hex64(xxh3_64(configuration))}};
  const auto key = [](const char* stem, int64_t rank) { return stem + std::to_string(rank); };
  store_->set(key("start/", self.rank), dump_json(identity));

  const auto mine = dump_json(identity);
  if (self.rank == 0) {
    bool equal = true;
    for (int64_t r = 0; r < self.world_size; ++r)
      equal = equal && wait_and_get(key("start/", r)) == mine;
    store_->set("start/equal", equal ? "yes" : "no");
  }
  if (wait_and_get("start/equal") == "yes") return {};

  Json full = identity;
  full.erase("configuration");
  full["configuration"] = self.configuration;
  store_->set(key("start/full/", self.rank), dump_json(full));
  if (self.rank == 0) {
    std::vector<Json> by_rank;
    for (int64_t r = 0; r < self.world_size; ++r) {
      const auto from = key("start/full/", r);
      by_rank.push_back(parse_json(wait_and_get(from), from));
    }
    store_->set("start/verdict",
                "the ranks were started with different settings:" + describe_differences(by_rank));
  }
  return wait_and_get("start/verdict");
}

}  // namespace triptych
