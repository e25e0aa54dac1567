// Faults put into real runs of two processes: the findings name exactly these, and on the run
// without them nothing, but for what other programs on this machine do to it.

#include <sched.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <list>

#include "profiled_run.h"

namespace triptych {
namespace {

/// A window long enough that the machine's own noise is no evidence.
constexpr const char* kWindow = "[profile]\nmode = \"static\"\nwindows = [[4, 14]]\nranks = [-1]\n";
constexpr int64_t kSteps = 13;

/// A finding as "slow_rank 1", of a link as "slow_link 1>0".
std::string name_of(const Json& finding) {
  const auto number = [&](const char* key) { return finding.value(key, int64_t{-1}); };
  const auto kind = finding["kind"].get<std::string>();
  return finding.contains("rank") ? fmt::format("{} {}", kind, number("rank"))
                                  : fmt::format("{} {}>{}", kind, number("src"), number("dst"));
}

std::vector<std::string> found(const Json& summary) {
  std::vector<std::string> list;
  for (const auto& f : summary["findings"]) list.push_back(name_of(f));
  return list;
}

/// Median over the steps of a rank; 0 where they do not tell.
double median_ns(const Json& summary, int64_t rank, const char* key) {
  std::vector<double> values;
  for (const auto& step : summary["steps"])
    if (step["rank"] == rank) values.push_back(step.value(key, 0.0));
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// Whether another program on this machine did it, by how long threads waited for a core: the rank
/// for more than a tenth of what it computes, which is the least that a slow rank is named for, or
/// both ranks together for half of what one step took more than usual.
bool is_of_this_machine(const Json& finding, const Json& summary) {
  const auto& evidence = finding["evidence"];
  if (finding["kind"] == "slow_rank") {
    const int64_t rank = finding["rank"];
    return evidence.value("shares_core", false) &&
           median_ns(summary, rank, "core_wait_ns") > 0.1 * median_ns(summary, rank, "compute_ns");
  }
  if (finding["kind"] != "outlier_step") return false;
  double waited = 0;
  for (const auto& step : summary["steps"])
    if (step["step"] == finding["step"]) waited += step.value("core_wait_ns", 0.0);
  const auto excess = evidence["total_ns"].get<double>() - evidence["usual_ns"].get<double>();
  return waited >= 0.5 * excess;
}

/// The findings that are of the run itself.
std::vector<std::string> found_of_the_run(const Json& summary) {
  std::vector<std::string> list;
  for (const auto& f : summary["findings"])
    if (!is_of_this_machine(f, summary)) list.push_back(name_of(f));
  return list;
}

/// The first two cores that this process may use; empty where there are fewer.
std::vector<size_t> two_cores() {
  cpu_set_t mine;
  CPU_ZERO(&mine);
  std::vector<size_t> cores;
  if (sched_getaffinity(0, sizeof mine, &mine) != 0) return cores;
  for (size_t core = 0; core < CPU_SETSIZE && cores.size() < 2; ++core)
    if (CPU_ISSET(core, &mine)) cores.push_back(core);
  if (cores.size() < 2) cores.clear();
  return cores;
}

bool kernel_tells_core_waits() { return fs::exists("/proc/thread-self/schedstat"); }

class Faults : public ProfiledRuns {
 protected:
  /// Starts `train` on two processes and calls `look` with the process number of each rank, once.
  template <class Look>
  void train_watched(const fs::path& file, const Look& look) const {
    auto training = start(file);
    std::set<pid_t> seen;
    while (training.running()) {
      for (const auto& [pid, rank] : training.workers())
        if (seen.insert(pid).second) look(pid, rank);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    ASSERT_EQ(training.wait(), 0) << said();
    ASSERT_THAT(seen, SizeIs(2));
  }

  /// All threads that a process has; those to come inherit it.
  static void pin(pid_t pid, size_t core) {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(core, &cores);
    for (const auto& task : fs::directory_iterator(fmt::format("/proc/{}/task", pid))) {
      const auto thread = std::stoi(task.path().filename().string());
      if (sched_setaffinity(thread, sizeof cores, &cores) != 0)
        EXPECT_EQ(errno, ESRCH) << "thread " << thread << " of " << pid << ", core " << core;
    }
  }

  /// Rows in order, so that data rank r gets those with number r mod 2. Eight a step and rank, so
  /// that what a busy machine keeps a loader from for a moment is little of a step.
  fs::path ordered_run(const fs::path& records) const {
    const auto file = run_file(kWindow, kSteps, 16);
    auto text = read_file(file);
    const auto put = [&](const std::string& what, const std::string& with) {
      text.replace(text.find(what), what.size(), with);
    };
    put((made / "data/train.jsonl").string(), records.string());
    put("max_length = 256",
        "max_length = 256\nshuffle = false\npacking = false\nworkers = 1\n"
        "image_max_pixels = 4096");
    write_file_atomically(file, text);
    return file;
  }

  /// The quickstart's records with `picture` in those of odd number; empty: none is changed.
  fs::path records(const fs::path& picture) const {
    std::ifstream file(made / "data/train.jsonl");
    std::string text;
    int64_t number = 0;
    for (std::string line; std::getline(file, line); ++number) {
      auto record = parse_json(line, "record");
      const bool other = number % 2 == 1 && !picture.empty();
      record["image"] =
          other ? picture.string() : (made / "data" / record["image"].get<std::string>()).string();
      text += dump_json(record) + "\n";
    }
    write_file_atomically(folder_ / "records.jsonl", text);
    return folder_ / "records.jsonl";
  }

  /// A picture that takes longer to decode than a row to train on, many times.
  fs::path large_picture() const {
    constexpr uint32_t kSide = 3000;
    std::string rows;
    for (uint32_t y = 0; y < kSide; ++y) {
      rows += '\0';  // no filter
      rows.append(3 * kSide, static_cast<char>(y));
    }
    uLongf size = compressBound(rows.size());
    std::string packed(size, '\0');
    compress2(reinterpret_cast<Bytef*>(packed.data()), &size,
              reinterpret_cast<const Bytef*>(rows.data()), rows.size(), 1);
    packed.resize(size);
    const auto number = [](uint32_t n) {
      return std::string{static_cast<char>(n >> 24), static_cast<char>(n >> 16),
                         static_cast<char>(n >> 8), static_cast<char>(n)};
    };
    const auto chunk = [&](const std::string& type, const std::string& data) {
      const auto body = type + data;
      const auto sum =
          crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size()));
      return number(static_cast<uint32_t>(data.size())) + body + number(static_cast<uint32_t>(sum));
    };
    const std::string kind{8, 2, 0, 0, 0};  // 8 bits, RGB
    write_file_atomically(folder_ / "large.png",
                          "\x89PNG\r\n\x1a\n" +
                              chunk("IHDR", number(kSide) + number(kSide) + kind) +
                              chunk("IDAT", packed) + chunk("IEND", ""));
    return folder_ / "large.png";
  }
};

TEST_F(Faults, ASlowRankIsNamedAndOnlyThat) {
  const auto cores = two_cores();
  if (cores.empty()) GTEST_SKIP() << "a core for each of two ranks is needed";
  // Other programs on the core of rank 1: as many as leave it slower than whatever else this
  // machine has to do makes the other one.
  constexpr int kBurners = 8;
  std::list<StartedRun> burners;
  train_watched(run_file(kWindow, kSteps), [&](pid_t pid, int rank) {
    pin(pid, cores.at(static_cast<size_t>(rank)));
    for (int i = 0; rank == 1 && i < kBurners; ++i) {
      burners.emplace_back(std::vector<std::string>{"/bin/sh", "-c", "while :; do :; done"},
                           "/dev/null");
      pin(burners.back().pid(), cores[1]);
    }
  });
  burners.clear();
  const auto s = summary();
  EXPECT_THAT(found(s), ElementsAre("slow_rank 1")) << s["findings"];
  if (!kernel_tells_core_waits()) GTEST_SKIP() << "only the cause: the kernel has no schedstat";
  EXPECT_EQ(s["findings"][0]["evidence"]["shares_core"], true);
  EXPECT_THAT(s["findings"][0]["words"], HasSubstr("for a core: something else runs there"));
}

TEST_F(Faults, ACleanRunHasNone) {
  const auto cores = two_cores();
  if (cores.empty()) GTEST_SKIP() << "a core for each of two ranks is needed";
  train_watched(run_file(kWindow, kSteps),
                [&](pid_t pid, int rank) { pin(pid, cores.at(static_cast<size_t>(rank))); });
  const auto s = summary();
  EXPECT_THAT(found_of_the_run(s), IsEmpty()) << s["findings"];
  if (!kernel_tells_core_waits()) GTEST_SKIP() << "only the waits: the kernel has no schedstat";
  for (const auto& step : s["steps"]) EXPECT_GE(step["core_wait_ns"].get<int64_t>(), 0);
}

TEST_F(Faults, AStalledLoaderIsNamedAndOnlyThat) {
  const auto outcome =
      run(fmt::format("train {} --nproc 2", ordered_run(records(large_picture())).string()));
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const auto s = summary();
  // Its decoding takes cores, too, of which the machine may have but two.
  EXPECT_THAT(found_of_the_run(s), ElementsAre("loader_stall 1")) << s["findings"];
}

TEST_F(Faults, WithTheSameRecordsAndSmallPicturesNoLoaderStalls) {
  const auto outcome = run(fmt::format("train {} --nproc 2", ordered_run(records({})).string()));
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const auto s = summary();
  EXPECT_THAT(found(s), Not(Contains("loader_stall 1"))) << s["findings"];
}

/// As another host's clock would have it: all hosts here share one, so the file is changed.
TEST_F(Faults, AClockThatIsAheadIsNamedAndOnlyThat) {
  train(kWindow, "--nproc 2", kSteps);
  const auto clean = found(summary());
  for (const auto& file : traces()) {
    fs::remove(file.string() + ".mmidx");
    if (file.filename().string().find("rank-1_") == std::string::npos) continue;
    auto text = insight::gunzip(read_file(file), size_t{1} << 30);
    constexpr std::string_view kBase = "\"baseTimeNanoseconds\": ";
    const auto at = text.find(kBase) + kBase.size();
    const auto base = std::stoll(text.substr(at, 20));
    text.replace(at, std::to_string(base).size(), std::to_string(base + 3'000'000));

    const auto host = text.find("\"host\":\"");
    const auto end = text.find('"', host + 8);
    text.replace(host + 8, end - host - 8, "other");
    write_file_atomically(file, insight::gzip(text, 1));
  }
  auto expected = clean;
  expected.insert(expected.begin(), "clock_skew 1");
  EXPECT_THAT(found(summary()), testing::UnorderedElementsAreArray(expected));
}

}  // namespace
}  // namespace triptych
