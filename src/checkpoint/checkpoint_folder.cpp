#include "checkpoint/checkpoint_folder.h"

#include <algorithm>
#include <charconv>
#include <system_error>

#include "base/error.h"
#include "base/files.h"
#include "base/format.h"
#include "base/log.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "step_";
constexpr std::string_view kManifest = "manifest.json";
constexpr std::string_view kFormat = "triptych-checkpoint";
constexpr int64_t kVersion = 1;

std::optional<int64_t> step_of(const std::string& name) {
  if (!name.starts_with(kPrefix) || name.size() < kPrefix.size() + 8) return std::nullopt;
  int64_t step = 0;
  const char* const end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + kPrefix.size(), end, step);
  if (error != std::errc() || stop != end || checkpoint_name(step) != name) return std::nullopt;
  return step;
}

int64_t whole_number(const Json& object, std::string_view key, const std::string& origin) {
  const Json& value = json_member(object, key, origin);
  require<DataError>(value.is_number_integer() && value.get<int64_t>() >= 0, origin, ": '", key,
                     "' is ", value.dump(), ", a number from 0 up is expected");
  return value.get<int64_t>();
}

uint64_t parse_hex64(const Json& value, const std::string& origin) {
  uint64_t number = 0;
  const std::string text = value.is_string() ? value.get<std::string>() : "";
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number, 16);
  require<DataError>(text.size() == 16 && error == std::errc() && stop == end, origin,
                     ": the checksum ", value.dump(), " is not 16 hexadecimal digits");
  return number;
}

void check_file(const fs::path& folder, const std::string& name, const FileDigest& expected,
                bool verify) {
  const fs::path path = folder / name;
  std::error_code error;
  const auto bytes = fs::file_size(path, error);
  require<DataError>(!error, path.string(), ": is missing (", error.message(),
                     "), its manifest lists it");
  require<DataError>(static_cast<int64_t>(bytes) == expected.bytes, path.string(), ": has ", bytes,
                     " bytes, its manifest says ", expected.bytes);
  if (!verify) return;
  const auto found = digest_of_file(path).xxh3;
  require<DataError>(found == expected.xxh3, path.string(), ": has the checksum ", hex64(found),
                     ", its manifest says ", hex64(expected.xxh3));
}

/// Renamed first, so that a checkpoint is never seen half deleted.
void remove_checkpoint(const fs::path& checkpoints, int64_t step) {
  const fs::path aside = checkpoints / fmt::format(".{}.removed", checkpoint_name(step));
  fs::remove_all(aside);
  fs::rename(checkpoints / checkpoint_name(step), aside);
  fs::remove_all(aside);
}

}  // namespace

Json Checkpoint::state() const { return read_json(folder / "state.json"); }

std::string checkpoint_name(int64_t step) { return fmt::format("{}{:08}", kPrefix, step); }

std::string Manifest::dump() const {
  Json listed = Json::object();
  for (const auto& [name, digest] : files) {
    listed[name] = {{"bytes", digest.bytes}, {"xxh3", hex64(digest.xxh3)}};
  }
  const Json json = {{"format", kFormat},
                     {"version", kVersion},
                     {"step", step},
                     {"world", world},
                     {"files", listed}};
  return dump_json(json, 2) + "\n";
}

Manifest Manifest::read(const fs::path& path) {
  constexpr uint64_t kMostBytes = uint64_t{64} << 20;
  return parse(read_file(path, kMostBytes), path.string());
}

Manifest Manifest::parse(std::string_view text, const std::string& origin) {
  const Json json = parse_json(text, origin);
  require<DataError>(json_member(json, "format", origin) == kFormat, origin, ": 'format' is ",
                     json["format"].dump(), ", \"", kFormat, "\" is expected");
  const int64_t version = whole_number(json, "version", origin);
  require<DataError>(version == kVersion, origin, ": is of version ", version,
                     ", this program reads version ", kVersion);
  Manifest manifest{.step = whole_number(json, "step", origin),
                    .world = whole_number(json, "world", origin)};
  const Json& files = json_member(json, "files", origin);
  require<DataError>(files.is_object(), origin, ": 'files' must be an object");
  for (const auto& [name, file] : files.items()) {
    const fs::path relative = fs::path(name).lexically_normal();
    require<DataError>(relative.is_relative() && !relative.empty() && *relative.begin() != "..",
                       origin, ": lists the file '", name, "', which is outside the checkpoint");
    manifest.files[name] = {.bytes = whole_number(file, "bytes", origin),
                            .xxh3 = parse_hex64(json_member(file, "xxh3", origin), origin)};
  }
  return manifest;
}

std::vector<int64_t> listed_checkpoints(const fs::path& output) {
  std::vector<int64_t> steps;
  const fs::path checkpoints = output / "checkpoints";
  if (!fs::is_directory(checkpoints)) return steps;
  for (const auto& entry : fs::directory_iterator(checkpoints)) {
    const auto step = step_of(entry.path().filename().string());
    if (step && fs::exists(entry.path() / kManifest)) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

Checkpoint open_checkpoint(const fs::path& folder, bool verify) {
  require<DataError>(fs::is_directory(folder), folder.string(),
                     ": is not a folder; a checkpoint such as ", checkpoint_name(500),
                     " is expected");
  require<DataError>(fs::exists(folder / kManifest), folder.string(), ": has no ", kManifest,
                     "; it is no checkpoint, or its save was interrupted");
  const auto manifest = Manifest::read(folder / kManifest);
  require<DataError>(manifest.files.contains("state.json"), folder.string(),
                     ": its manifest lists no state.json");
  for (const auto& [name, digest] : manifest.files) check_file(folder, name, digest, verify);
  return {.folder = folder, .step = manifest.step};
}

std::optional<Checkpoint> find_newest_complete(const fs::path& output, bool verify) {
  const auto steps = listed_checkpoints(output);
  std::string damage;
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    const fs::path folder = output / "checkpoints" / checkpoint_name(*step);
    try {
      return open_checkpoint(folder, verify);
    } catch (const Error& error) {
      log_warning("{}: is damaged and passed over: {}", folder.string(), error.what());
      if (damage.empty()) damage = error.what();
    }
  }
  require<DataError>(steps.empty(), output.string(), ": none of its ", steps.size(),
                     " checkpoints is whole; the newest: ", damage,
                     "; set checkpoint.resume = \"none\" to start anew");
  return std::nullopt;
}

int64_t remove_leftovers(const fs::path& output) {
  const fs::path checkpoints = output / "checkpoints";
  if (!fs::is_directory(checkpoints)) return 0;
  std::vector<fs::path> leftovers;
  for (const auto& entry : fs::directory_iterator(checkpoints)) {
    const std::string name = entry.path().filename().string();
    const bool ours =
        name.starts_with("." + std::string(kPrefix)) || name.starts_with("latest.tmp");
    const bool unfinished = step_of(name) && !fs::exists(entry.path() / kManifest);
    if (ours || unfinished) leftovers.push_back(entry.path());
  }
  for (const auto& path : leftovers) {
    log_info("{}: left by an interrupted save, removed", path.string());
    fs::remove_all(path);
  }
  return static_cast<int64_t>(leftovers.size());
}

void remove_old_checkpoints(const fs::path& output, int64_t keep, int64_t newest) {
  if (keep <= 0) return;
  auto steps = listed_checkpoints(output);
  std::erase_if(steps, [newest](int64_t step) { return step > newest; });  // another run's future
  for (size_t i = 0; i + static_cast<size_t>(keep) < steps.size(); ++i) {
    remove_checkpoint(output / "checkpoints", steps[i]);
  }
}

}  // namespace triptych
