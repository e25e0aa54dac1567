// Checkpoint load and save against what the machine can do in the same run; one JSON line.
//
//   bench_checkpoint [--mib N] [--dir FOLDER] [--threads N] [--step-seconds S]
//
// load_copy_gbps   hub folder in the page cache, copied into existing tensors
// load_fresh_gbps  the same into new ones
// raw_write_gbps   one buffer of the same size by write() and fsync(); save_gbps the same tensors
// by
//                  save_hub_folder. Alternating, best of three each
// stall_of_step    seconds in which an asynchronous save holds up the training loop, for the
// weights
//                  and three states each, over steps of S seconds of arithmetic on all threads
// slowdown_of_step how much longer than others the step beside the save takes
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>

#include "base/error.h"
#include "base/files.h"
#include "checkpoint/checkpoint_writer.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

struct Settings {
  int64_t mib = 1024;
  int threads = 2;
  double step_seconds = 3;
  fs::path folder = fs::temp_directory_path();
};

double seconds(const std::function<void()>& work) {
  const auto start = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void raw_write(const fs::path& path, const at::Tensor& bytes, bool flush) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) fail_errno(path, "cannot be created");
  const auto* data = static_cast<const char*>(bytes.const_data_ptr());
  constexpr size_t kBlock = size_t{16} << 20;
  for (size_t at = 0; at < bytes.nbytes(); at += kBlock) {
    const size_t length = std::min(kBlock, bytes.nbytes() - at);
    if (::write(fd, data + at, length) != static_cast<ssize_t>(length))
      fail_errno(path, "cannot be written");
  }
  if (flush && ::fsync(fd) != 0) fail_errno(path, "cannot be flushed");
  ::close(fd);
}

/// Arithmetic for about `wanted` seconds, always the same amount.
class Step {
 public:
  explicit Step(double wanted) {
    work(1);
    rounds_ = std::max<int64_t>(1, static_cast<int64_t>(wanted / seconds([&] { work(3); }) * 3));
  }
  double run() const {
    return seconds([&] { work(rounds_); });
  }

 private:
  void work(int64_t rounds) const {
    for (int64_t i = 0; i < rounds; ++i) at::mm_out(c_, a_, b_);
  }
  at::Tensor a_ = at::randn({1024, 1024}), b_ = at::randn({1024, 1024});
  mutable at::Tensor c_ = at::empty({1024, 1024});
  int64_t rounds_ = 1;
};

/// bf16 weights and their fp32 master and moments: 14 bytes a parameter.
struct Training {
  std::vector<TensorSpec> specs;
  std::map<std::string, at::Tensor> weights, states;

  explicit Training(int64_t weight_bytes) {
    constexpr int64_t kTensors = 16, kColumns = 4096;
    const int64_t rows = weight_bytes / 2 / kTensors / kColumns;
    for (int64_t i = 0; i < kTensors; ++i) {
      const std::string name = "layers." + std::to_string(i) + ".weight";
      specs.push_back({name, at::kBFloat16, {rows, kColumns}});
      weights[name] = at::rand({rows, kColumns}).to(at::kBFloat16);
    }
  }
  void add_states() {
    for (const auto& spec : specs) {
      for (const char* kind : {"master", "exp_avg", "exp_avg_sq"}) {
        states[spec.name + "." + kind] = at::rand(spec.shape);
      }
    }
  }
  TensorProvider provider() const {
    return [this](const std::string& name) { return weights.at(name).detach(); };
  }
  std::vector<OptimizerPiece> pieces() const {
    std::vector<OptimizerPiece> pieces;
    for (const auto& spec : specs) {
      for (const char* kind : {"master", "exp_avg", "exp_avg_sq"}) {
        const auto values = states.at(spec.name + "." + kind);
        pieces.push_back(
            {spec.name, kind, spec.shape, 0, values.numel(), [values] { return values; }});
      }
    }
    return pieces;
  }
};

struct Asynchronous {
  double stall = 0, slowdown = 0, copied_share = 0, total_seconds = 0, gigabytes = 0;
};

Asynchronous measure_asynchronous(const Settings& settings, const fs::path& folder) {
  Training training(settings.mib * (int64_t{1} << 20) / 7);  // all in all `mib`
  training.add_states();
  const Step step(settings.step_seconds);
  double alone = step.run();
  for (int i = 0; i < 2; ++i) alone = std::min(alone, step.run());
  CheckpointWriter writer({.output = folder / "run", .keep = 1});
  Asynchronous best{.stall = 1e9};
  for (int i = 0; i < 3; ++i) {
    writer.save(i + 1, {.layout = make_layout(training.specs), .provider = training.provider()},
                training.pieces(), Json::object());
    const double beside = step.run();
    writer.before_update();
    writer.wait();
    const auto cost = writer.statistics();
    if (cost.stalled_seconds / alone > best.stall) continue;
    best = {
        .stall = cost.stalled_seconds / alone,
        .slowdown = beside / alone - 1,
        .copied_share = static_cast<double>(cost.copied_bytes) / static_cast<double>(cost.bytes),
        .total_seconds = cost.total_seconds,
        .gigabytes = static_cast<double>(cost.bytes) / 1e9};
  }
  return best;
}

void measure(const Settings& settings) {
  const fs::path folder = settings.folder / ("triptych_benchmark_" + std::to_string(::getpid()));
  make_folders(folder);
  Json result = {{"bench", "checkpoint"}, {"threads", settings.threads}, {"mib", settings.mib}};
  {
    const Training training(settings.mib << 20);
    const auto layout = make_layout(training.specs);
    const auto gigabytes = static_cast<double>(layout.data_bytes()) / 1e9;
    const auto buffer = at::rand({layout.data_bytes() / 4});
    double raw = 1e9, cached = 1e9, save = 1e9, copy = 1e9, fresh = 1e9;
    for (int i = 0; i < 3; ++i) {
      cached = std::min(cached, seconds([&] { raw_write(folder / "raw", buffer, false); }));
      fs::remove(folder / "raw");
      raw = std::min(raw, seconds([&] { raw_write(folder / "raw", buffer, true); }));
      fs::remove(folder / "raw");
      fs::remove_all(folder / "hub");
      save = std::min(
          save, seconds([&] { save_hub_folder(folder / "hub", layout, training.provider()); }));
    }
    for (int i = 0; i < 3; ++i) {
      copy = std::min(copy, seconds([&] {
                        const auto hub = HubFolder::open(folder / "hub");
                        for (const auto& name : hub.names())
                          hub.read_into(name, training.weights.at(name));
                      }));
      fresh = std::min(fresh, seconds([&] {
                         const auto hub = HubFolder::open(folder / "hub");
                         std::vector<at::Tensor> all;
                         for (const auto& name : hub.names()) all.push_back(hub.read(name));
                       }));
    }
    fs::remove_all(folder / "hub");
    result["load_copy_gbps"] = gigabytes / copy;
    result["load_fresh_gbps"] = gigabytes / fresh;
    result["raw_write_gbps"] = gigabytes / raw;
    result["raw_cached_gbps"] = gigabytes / cached;
    result["save_gbps"] = gigabytes / save;
    result["save_of_raw"] = raw / save;
  }
  const auto async = measure_asynchronous(settings, folder);
  result["async_gigabytes"] = async.gigabytes;
  result["async_total_s"] = async.total_seconds;
  result["step_s"] = settings.step_seconds;
  result["stall_of_step"] = async.stall;
  result["slowdown_of_step"] = async.slowdown;
  result["copied_share"] = async.copied_share;
  std::cout << dump_json(result) << std::endl;
  fs::remove_all(folder);
}

Settings parse(int argc, char** argv) {
  Settings settings;
  for (int i = 1; i < argc; i += 2) {
    const std::string flag = argv[i];
    require<UsageError>(i + 1 < argc, flag, " needs a value");
    const std::string value = argv[i + 1];
    if (flag == "--mib") {
      settings.mib = std::stoll(value);
    } else if (flag == "--dir") {
      settings.folder = value;
    } else if (flag == "--threads") {
      settings.threads = std::stoi(value);
    } else if (flag == "--step-seconds") {
      settings.step_seconds = std::stod(value);
    } else {
      fail<UsageError>(flag, " is not known; there are --mib, --dir, --threads, --step-seconds");
    }
  }
  return settings;
}

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) try {
  const auto settings = triptych::parse(argc, argv);
  at::set_num_threads(settings.threads);
  triptych::measure(settings);
  return 0;
} catch (const triptych::UsageError& error) {
  std::cerr << "error: " << error.what() << '\n';
  return 2;
} catch (const std::exception& error) {
  std::cerr << "error: " << error.what() << '\n';
  return 1;
}
