// Faults put into real runs of two processes: the findings name exactly these, and nothing on the
// run without them.

#include <sched.h>
#include <zlib.h>

#include <atomic>

#include "profiled_run.h"

namespace triptych {
namespace {

/// A window long enough that the machine's own noise is no evidence.
constexpr const char* kWindow = "[profile]\nmode = \"static\"\nwindows = [[4, 14]]\nranks = [-1]\n";
constexpr int64_t kSteps = 13;

std::vector<std::string> found(const Json& summary) {
  std::vector<std::string> list;
  for (const auto& f : summary["findings"])
    list.push_back(fmt::format("{} {}", f["kind"].get<std::string>(), f["rank"].get<int64_t>()));
  return list;
}

class Faults : public ProfiledRuns {
 protected:
  /// Starts `train` on two processes and calls `look` with the process number of each rank, once.
  template <class Look>
  void train_watched(const fs::path& file, const Look& look) const {
    const auto launcher = fork();
    if (launcher == 0) {
      const auto err = folder_ / "train.err";
      if (std::freopen(err.c_str(), "w", stderr) == nullptr) _exit(126);
      execl(TRIPTYCH_COMMAND, TRIPTYCH_COMMAND, "train", file.c_str(), "--nproc", "2", nullptr);
      _exit(127);
    }
    std::set<pid_t> seen;
    int status = 0;
    while (waitpid(launcher, &status, WNOHANG) == 0) {
      for (const auto& [pid, rank] : workers_of(launcher))
        if (seen.insert(pid).second) look(pid, rank);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    ASSERT_EQ(WEXITSTATUS(status), 0) << read_file(folder_ / "train.err");
    ASSERT_THAT(seen, SizeIs(2));
  }

  static void pin(pid_t pid, int core) {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(static_cast<size_t>(core), &cores);
    for (const auto& task : fs::directory_iterator(fmt::format("/proc/{}/task", pid)))
      sched_setaffinity(std::stoi(task.path().filename().string()), sizeof cores, &cores);
  }

  /// Rows in order, so that data rank r gets those with number r mod 2.
  fs::path ordered_run(const fs::path& records) const {
    const auto file = run_file(kWindow, kSteps);
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

  /// A picture that takes a good part of a second to decode.
  fs::path large_picture() const {
    constexpr uint32_t kSide = 6000;
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
  // Other programs on the core of rank 1: as many as leave it slower than whatever else this
  // machine has to do makes the other one.
  constexpr int kBurners = 4;
  std::vector<pid_t> burners;
  train_watched(run_file(kWindow, kSteps), [&](pid_t pid, int rank) {
    pin(pid, rank);
    for (int i = 0; rank == 1 && i < kBurners; ++i) {
      burners.push_back(fork());
      if (burners.back() != 0) continue;
      pin(getpid(), 1);
      for (std::atomic<unsigned> n = 0;; n.store(n.load() + 1)) {
      }
    }
  });
  for (const auto burner : burners) {
    kill(burner, SIGKILL);
    waitpid(burner, nullptr, 0);
  }
  const auto s = summary();
  EXPECT_THAT(found(s), ElementsAre("slow_rank 1")) << s["findings"];
  EXPECT_EQ(s["findings"][0]["evidence"]["shares_core"], true);
  EXPECT_THAT(s["findings"][0]["words"], HasSubstr("for a core: something else runs there"));
}

/// Where another program takes a core meanwhile, that rank is slow, and rightly named so, with the
/// cause; nothing else may be.
TEST_F(Faults, ACleanRunHasNone) {
  train_watched(run_file(kWindow, kSteps), [](pid_t pid, int rank) { pin(pid, rank); });
  const auto s = summary();
  for (const auto& f : s["findings"])
    EXPECT_TRUE(f["kind"] == "slow_rank" && f["evidence"].value("shares_core", false)) << f;
  for (const auto& step : s["steps"]) EXPECT_GE(step["core_wait_ns"].get<int64_t>(), 0);
}

TEST_F(Faults, AStalledLoaderIsNamedAndOnlyThat) {
  const auto outcome =
      run(fmt::format("train {} --nproc 2", ordered_run(records(large_picture())).string()));
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const auto s = summary();
  EXPECT_THAT(found(s), ElementsAre("loader_stall 1")) << s["findings"];
}

TEST_F(Faults, WithTheSameRecordsAndSmallPicturesNoLoaderStalls) {
  const auto outcome = run(fmt::format("train {} --nproc 2", ordered_run(records({})).string()));
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(found(summary()), Not(Contains("loader_stall 1")));
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
