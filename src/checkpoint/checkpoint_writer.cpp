#include "checkpoint/checkpoint_writer.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "base/format.h"
#include "base/log.h"
#include "checkpoint/checkpoint_folder.h"
#include "checkpoint/folder_swap.h"
#include "checkpoint/optimizer_index.h"
#include "checkpoint/staging.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// One file that this rank writes: header and the staged tensors in its order.
struct PlannedFile {
  std::string name;  ///< relative to the checkpoint
  SafetensorsHeader header;
  std::vector<size_t> staged;
};

/// What one rank tells rank 0 about its files.
struct RankReport {
  std::map<std::string, FileDigest> files;
  OptimizerIndex optimizer;
};

std::string report_name(int rank) { return fmt::format(".rank_{:05}.json", rank); }

void write_report(const fs::path& folder, int rank, const RankReport& report) {
  // A manifest of the rank's own, so that one format and one reader do.
  const Manifest manifest{.files = report.files};
  const Json json = {{"manifest", manifest.dump()}, {"optimizer", report.optimizer.dump()}};
  write_file_atomically(folder / report_name(rank), dump_json(json));
}

RankReport take_report(const fs::path& folder, int rank) {
  const fs::path path = folder / report_name(rank);
  const Json json = read_json(path);
  RankReport report;
  report.files = Manifest::parse(json_member(json, "manifest", path.string()).get<std::string>(),
                                 path.string())
                     .files;
  report.optimizer =
      OptimizerIndex::parse(json_member(json, "optimizer", path.string()), path.string());
  fs::remove(path);
  return report;
}

/// The rank that writes each file: the largest first, each to the rank with the least so far.
std::vector<int> writers_of(const HubLayout& layout, int world) {
  std::vector<size_t> order(layout.files.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto bytes = [&](size_t i) { return layout.files[i].header.data_bytes(); };
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return bytes(a) > bytes(b); });
  std::vector<int64_t> load(static_cast<size_t>(world));
  std::vector<int> writers(order.size());
  for (const size_t i : order) {
    const auto least = std::min_element(load.begin(), load.end());
    writers[i] = static_cast<int>(least - load.begin());
    *least += bytes(i);
  }
  return writers;
}

bool is_whole(const OptimizerPiece& piece) {
  const Geometry whole{.shape = piece.shape};
  return !piece.slice && piece.begin == 0 && piece.end == whole.numel();
}

}  // namespace

/// One save from its plan to its place; lives until the next one.
struct CheckpointWriter::Implementation {
  CheckpointOptions options;
  int rank;
  int world;
  Agree agree;

  int64_t step = 0;
  std::unique_ptr<Staging> staging;
  std::vector<PlannedFile> files;
  std::vector<SideFile> small_files;  ///< rank 0: names relative to the checkpoint
  OptimizerIndex optimizer;           ///< this rank's pieces

  std::thread thread;
  mutable std::mutex mutex;  // guards what follows
  bool running = false;
  std::exception_ptr error;
  Statistics statistics;

  fs::path checkpoints() const { return options.output / "checkpoints"; }
  fs::path final_folder() const { return checkpoints() / checkpoint_name(step); }
  fs::path temporary() const {
    return checkpoints() / fmt::format(".{}.tmp", checkpoint_name(step));
  }

  bool all_ranks(bool ok) const { return world == 1 || !agree ? ok : agree(ok); }

  void plan_weights(const WeightsToSave& weights);
  void plan_optimizer(std::vector<OptimizerPiece> pieces);

  void run();
  void prepare() const;
  RankReport write_files();
  void commit(RankReport report);
  template <class Stage>
  void on_all_ranks(Stage&& stage);
  void throw_error();
};

void CheckpointWriter::Implementation::plan_weights(const WeightsToSave& weights) {
  const auto writers = writers_of(weights.layout, world);
  for (size_t i = 0; i < writers.size(); ++i) {
    const auto& file = weights.layout.files[i];
    const bool mine = writers[i] == rank;
    if (!mine && !weights.collective) continue;
    PlannedFile planned{.name = "weights/" + file.name, .header = file.header};
    for (const auto& tensor : file.header.tensors) {
      auto value = weights.provider(tensor.name);
      if (!mine) continue;
      require(value.sizes() == at::IntArrayRef(tensor.shape), "checkpoint: tensor '", tensor.name,
              "' is ", value.sizes(), ", its file's header says ", at::IntArrayRef(tensor.shape));
      planned.staged.push_back(staging->add(std::move(value)));
    }
    if (mine) files.push_back(std::move(planned));
  }
  if (rank != 0) return;
  if (!weights.layout.index_name.empty()) {
    small_files.push_back({.name = weights.layout.index_name, .content = weights.layout.index()});
  }
  small_files.insert(small_files.end(), weights.files.begin(), weights.files.end());
}

void CheckpointWriter::Implementation::plan_optimizer(std::vector<OptimizerPiece> pieces) {
  if (pieces.empty()) return;
  const std::string file = fmt::format("rank_{:05}-of-{:05}.safetensors", rank, world);
  PlannedFile planned{.name = "optimizer/" + file};
  std::vector<StoredTensor> tensors;
  std::map<std::string, int> seen;
  for (auto& piece : pieces) {
    std::string name = piece.parameter + "." + piece.kind;
    if (const int again = seen[name]++; again > 0) name += fmt::format("@{}", again);  // its ranges
    const Geometry geometry{piece.shape, piece.slice};
    require(0 <= piece.begin && piece.begin <= piece.end && piece.end <= geometry.numel(),
            "checkpoint: ", name, " has ", geometry.numel(), " elements, to be saved are [",
            piece.begin, ", ", piece.end, ")");
    const auto shape =
        is_whole(piece) ? piece.shape : std::vector<int64_t>{piece.end - piece.begin};
    tensors.push_back({.name = name, .type = StoredType::kF32, .shape = shape});
    auto& entry = optimizer.parameters[piece.parameter];
    entry.shape = piece.shape;
    entry.pieces[piece.kind].push_back({file, name, piece.begin, piece.end, piece.slice});
    planned.staged.push_back(staging->add(std::move(piece.values)));
  }
  planned.header = make_safetensors_header(std::move(tensors));
  files.push_back(std::move(planned));
}

/// Runs a stage of the save; all ranks go on, or none does.
template <class Stage>
void CheckpointWriter::Implementation::on_all_ranks(Stage&& stage) {
  std::exception_ptr failed;
  try {
    stage();
  } catch (...) {
    failed = std::current_exception();
  }
  const bool ok = all_ranks(failed == nullptr);
  if (failed) std::rethrow_exception(failed);
  require(ok, "checkpoint of step ", step, ": another rank could not save its part");
}

void CheckpointWriter::Implementation::prepare() const {
  if (rank != 0) return;
  fs::remove_all(temporary());
  make_folders(temporary() / "weights");
  make_folders(temporary() / "optimizer");
}

RankReport CheckpointWriter::Implementation::write_files() {
  RankReport report{.optimizer = std::move(optimizer)};
  for (auto& file : files) {
    SafetensorsWriter writer(temporary() / file.name, file.header);
    for (size_t i = 0; i < file.staged.size(); ++i) {
      // Optimizer pieces come in any shape.
      writer.write(staging->take(file.staged[i]).reshape(file.header.tensors[i].shape));
      staging->done(file.staged[i]);
    }
    report.files[file.name] = writer.finish();
  }
  int64_t bytes = 0;
  for (const auto& [name, digest] : report.files) bytes += digest.bytes;
  {
    const std::lock_guard lock(mutex);
    statistics.bytes = bytes;
  }
  if (rank != 0) write_report(temporary(), rank, report);
  return report;
}

void CheckpointWriter::Implementation::commit(RankReport report) {
  if (rank != 0) return;
  const fs::path folder = temporary();
  for (int other = 1; other < world; ++other) {
    const auto theirs = take_report(folder, other);
    report.files.insert(theirs.files.begin(), theirs.files.end());
    report.optimizer.merge(theirs.optimizer, folder.string());
  }
  report.optimizer.check_complete("checkpoint of step " + std::to_string(step));
  const auto add = [&](const std::string& prefix, const SideFile& file) {
    report.files[prefix + file.name] = write_side_file(folder / prefix, file);
  };
  for (const auto& file : small_files) add(file.name == "state.json" ? "" : "weights/", file);
  add("optimizer/", {.name = "index.json", .content = dump_json(report.optimizer.dump()) + "\n"});
  sync_folder(folder / "weights");
  sync_folder(folder / "optimizer");
  const Manifest manifest{.step = step, .world = world, .files = std::move(report.files)};
  write_file_atomically(folder / "manifest.json", manifest.dump());
  put_folder_in_place(folder, final_folder());
  write_file_atomically(checkpoints() / "latest", checkpoint_name(step) + "\n");
  remove_old_checkpoints(options.output, options.keep, step);
}

void CheckpointWriter::Implementation::run() {
  const auto start = Clock::now();
  std::exception_ptr failed;
  try {
    RankReport report;
    on_all_ranks([&] { prepare(); });
    on_all_ranks([&] { report = write_files(); });
    on_all_ranks([&] { commit(std::move(report)); });
  } catch (...) {
    failed = std::current_exception();
    staging->abandon();
    std::error_code ignored;
    if (rank == 0) fs::remove_all(temporary(), ignored);
  }
  const std::lock_guard lock(mutex);
  error = failed;
  running = false;
  statistics.total_seconds = seconds_since(start);
}

void CheckpointWriter::Implementation::throw_error() {
  std::exception_ptr thrown;
  {
    const std::lock_guard lock(mutex);
    if (!running) std::swap(thrown, error);
  }
  if (thrown) std::rethrow_exception(thrown);
}

CheckpointWriter::CheckpointWriter(CheckpointOptions options, int rank, int world, Agree agree)
    : implementation_(std::make_unique<Implementation>()) {
  auto& self = *implementation_;
  self.options = std::move(options);
  self.rank = rank;
  self.world = world;
  self.agree = std::move(agree);
  require(world == 1 || self.agree, "checkpoint: ", world, " ranks need a way to agree");
  if (rank == 0) remove_leftovers(self.options.output);
}

CheckpointWriter::~CheckpointWriter() {
  try {
    wait();
  } catch (const std::exception& error) {
    log_error("{}", error.what());
  }
}

void CheckpointWriter::save(int64_t step, const WeightsToSave& weights,
                            std::vector<OptimizerPiece> optimizer, Json state) {
  wait();
  const auto start = Clock::now();
  auto& self = *implementation_;
  self.step = step;
  self.staging = std::make_unique<Staging>();
  self.files.clear();
  self.small_files.clear();
  self.optimizer = {};
  self.statistics = {};
  self.plan_weights(weights);
  self.plan_optimizer(std::move(optimizer));
  if (self.rank == 0) {
    self.small_files.push_back({.name = "state.json", .content = dump_json(state, 2) + "\n"});
  }
  self.running = true;
  if (!self.options.async) {
    self.run();
    self.statistics.stalled_seconds = seconds_since(start);
    self.throw_error();
    return;
  }
  self.thread = std::thread([&self] { self.run(); });
  const std::lock_guard lock(self.mutex);
  self.statistics.stalled_seconds += seconds_since(start);
}

void CheckpointWriter::before_update() {
  auto& self = *implementation_;
  if (!self.thread.joinable()) return;
  const auto start = Clock::now();
  const int64_t copied = self.staging->copy_rest();
  {
    const std::lock_guard lock(self.mutex);
    self.statistics.copied_bytes += copied;
    self.statistics.stalled_seconds += seconds_since(start);
  }
  self.throw_error();
}

void CheckpointWriter::wait() {
  auto& self = *implementation_;
  if (self.thread.joinable()) self.thread.join();
  self.staging.reset();
  self.throw_error();
}

bool CheckpointWriter::busy() const {
  const std::lock_guard lock(implementation_->mutex);
  return implementation_->running;
}

CheckpointWriter::Statistics CheckpointWriter::statistics() const {
  const std::lock_guard lock(implementation_->mutex);
  return implementation_->statistics;
}

}  // namespace triptych
