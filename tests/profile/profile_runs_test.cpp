// Whole runs that record themselves, read back by `triptych profile summary`.
//
//   profile_runs_test FOLDER   a folder made by quickstart_data

#include "profiled_run.h"

namespace triptych {
namespace {

TEST_F(ProfiledRuns, AStaticWindowOfOneProcess) {
  train("");
  const auto plain = losses();
  train("[profile]\nmode = \"static\"\nwindows = [[3, 5]]\n", "--overwrite");
  EXPECT_EQ(losses(), plain) << "recording must not change a bit";

  const auto files = traces();
  ASSERT_THAT(files, SizeIs(1));
  EXPECT_THAT(files[0].filename().string(),
              testing::MatchesRegex("rank-0_[0-9]+\\.[0-9]+\\.pt\\.trace\\.json\\.gz"));
  EXPECT_TRUE(fs::exists(files[0].string() + ".mmidx"));
  const auto trace = read_trace(files[0]);
  EXPECT_EQ(trace["distributedInfo"]["rank"], 0);
  EXPECT_EQ(trace["distributedInfo"]["world_size"], 1);
  EXPECT_EQ(trace["mm"]["model"], "qwen2_5_vl");
  EXPECT_FALSE(trace.contains("truncated"));
  const auto scopes = names(events(trace, "user_annotation"));
  for (const char* name :
       {"ProfilerStep#3", "ProfilerStep#4", "data_wait", "Optimizer.step#AdamW", "micro-batch 3",
        "nn.Module: model.layers.0", "nn.Module: visual.blocks.0"})
    EXPECT_THAT(scopes, Contains(name));
  EXPECT_THAT(scopes, Not(Contains("ProfilerStep#5")));
  EXPECT_THAT(names(events(trace, "module")), Contains("nn.Module: model.layers.0"));

  const auto s = summary();
  EXPECT_THAT(steps_of(s, 0), ElementsAre(3, 4));
  expect_steps_add_up(s);
  EXPECT_THAT(s["findings"], IsEmpty());
}

TEST_F(ProfiledRuns, AWindowKnowsItsShareOfPeak) {
  train("[profile]\nmode = \"static\"\nwindows = [[3, 6]]\n");
  const auto mm = read_trace(traces().at(0))["mm"];
  const auto s = summary();
  std::vector<double> told;
  std::ifstream file(folder_ / "out/metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const auto row = parse_json(line, "metrics");
    if (row["step"] >= 3)
      told.push_back(row["mfu"].get<double>() * row["step_seconds"].get<double>());
  }
  ASSERT_THAT(told, SizeIs(3));
  const double mean = (told[0] + told[1] + told[2]) / 3;
  EXPECT_NEAR(mm["model_flop_per_step"].get<double>() / mm["peak_flop_per_second"].get<double>(),
              mean,
              1e-6 * mean);  // metrics.jsonl has them as doubles; sums in another order
  ASSERT_THAT(s["ranks"], SizeIs(1));
  const double seconds = s["ranks"][0]["total_ns"].get<double>() / 1e9;
  EXPECT_NEAR(s["ranks"][0]["mfu"].get<double>(), mean / seconds, 1e-6 * mean / seconds);
}

TEST_F(ProfiledRuns, MemoryOfAWindowIsThatOfTheBooks) {
  train(
      "[profile]\nmode = \"static\"\nwindows = [[3, 5]]\nwith_memory = true\nwith_stack = true\n");
  // Who called: of slow operators and of large allocations.
  size_t slow = 0, named = 0, allocations = 0, own = 0;
  const auto trace = read_trace(traces().at(0));
  for (const auto& e : trace["traceEvents"]) {
    const auto name = e.value("name", "");
    const bool told = e.contains("args") && e["args"].contains("Call stack");
    if (e.value("cat", "") == "cpu_op" && e["dur"].get<double>() > 150) ++slow, named += told;
    if (name == "[memory]") allocations += told;
    if (!told) continue;
    const auto stack = e["args"]["Call stack"].get<std::string>();
    EXPECT_THAT(stack, HasSubstr("at::")) << e;
    own += stack.find("triptych::") != std::string::npos;
  }
  EXPECT_GT(slow, 10);
  EXPECT_GE(named, slow * 9 / 10) << "the two clocks may lie apart where the core was lost";
  EXPECT_GT(allocations, 10);
  EXPECT_GT(own, named / 2) << "the command does not export its names";
  const auto s = summary();
  ASSERT_THAT(s["memory"], SizeIs(1));
  const auto& peak = s["memory"][0];
  for (const char* kind : {"parameter", "gradient", "optimizer_state", "activation"})
    EXPECT_GT(peak["categories"].value(kind, int64_t{0}), 0) << peak["categories"];
  int64_t sum = 0, by_layer = 0, told = 0;
  for (const auto& [kind, bytes] : peak["categories"].items()) sum += bytes.get<int64_t>();
  for (const auto& layer : peak["layers"]) by_layer += layer["bytes"].get<int64_t>();
  std::set<std::string> layers;
  for (const auto& layer : peak["layers"]) layers.insert(layer["module"]);
  EXPECT_THAT(layers, Contains("model.layers.0"));
  EXPECT_EQ(sum, peak["allocated"]);
  EXPECT_EQ(by_layer, peak["allocated"]);
  std::ifstream file(folder_ / "out/metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const auto row = parse_json(line, "metrics");
    if (row["step"] == 3 || row["step"] == 4)
      told = std::max(told, row["tensor_peak_bytes"].get<int64_t>());
  }
  EXPECT_EQ(peak["allocated"], told) << "the books and the trace tell of one peak";
}

TEST_F(ProfiledRuns, ARankKilledInsideAWindowLeavesReadableFiles) {
  const auto file = run_file(
      "[profile]\nmode = \"static\"\nwindows = [[2, 4], [5, 1000000]]\nranks = [-1]\n"
      "[launch]\ntimeout_s = 20\nwarn_after_s = 10\n",
      1000000);
  auto training = start(file);
  ASSERT_TRUE(training.until([&] { return losses().size() >= 8 && traces().size() >= 2; }))
      << said();
  for (const auto& [pid, rank] : training.workers())
    if (rank == 1) kill(pid, SIGKILL);
  EXPECT_EQ(training.wait(), 1) << said();
  // Both ranks' first window; of the second what the survivor had.
  std::map<int64_t, std::vector<bool>> truncated;
  for (const auto& trace : traces()) {
    const auto read = read_trace(trace);
    const int64_t rank = read["distributedInfo"]["rank"];
    truncated[rank].push_back(read.value("truncated", false));
    if (rank != 1) continue;
    const auto scopes = names(events(read, "user_annotation"));
    EXPECT_THAT(scopes, AllOf(Contains("ProfilerStep#2"), Contains("ProfilerStep#3")));
  }
  EXPECT_EQ(truncated[1], std::vector<bool>{false});
  EXPECT_EQ(truncated[0], (std::vector<bool>{false, true}));
  // The newest collection is what the summary is about.
  EXPECT_THAT(steps_of(summary(), 0), AllOf(Contains(5), Contains(6)));
}

TEST_F(ProfiledRuns, SeveralWindowsOfChosenRanks) {
  train("[profile]\nmode = \"static\"\nwindows = [[2, 3], [3, 4], [5, 6]]\nranks = [1]\n",
        "--nproc 2");
  const auto files = traces();
  ASSERT_THAT(files, SizeIs(3));
  std::set<std::string> steps;
  for (const auto& file : files) {
    EXPECT_THAT(file.filename().string(), HasSubstr("rank-1_"));
    for (const auto& name : names(events(read_trace(file), "user_annotation")))
      if (name.starts_with("ProfilerStep#")) steps.insert(name);
  }
  EXPECT_THAT(steps, ElementsAre("ProfilerStep#2", "ProfilerStep#3", "ProfilerStep#5"));
}

TEST_F(ProfiledRuns, DataParallelRanksAgreeOnWindowAndCalls) {
  train("[profile]\nmode = \"static\"\nwindows = [[3, 6]]\nranks = [-1]\n", "--nproc 2");
  const auto files = traces();
  ASSERT_THAT(files, SizeIs(2));
  const auto s = summary();
  EXPECT_THAT(steps_of(s, 0), ElementsAre(3, 4, 5));
  EXPECT_THAT(steps_of(s, 1), ElementsAre(3, 4, 5));
  expect_steps_add_up(s);

  // Both ranks tell of the same calls with the same sizes.
  std::vector<std::map<int64_t, std::pair<std::string, int64_t>>> calls;
  for (const auto& file : files) {
    auto& mine = calls.emplace_back();
    for (const auto& e : events(read_trace(file), "mm_comm")) {
      const auto& a = e["args"];
      if (a.contains("Src Rank")) continue;
      EXPECT_TRUE(mine.try_emplace(a["Seq"].get<int64_t>(), a["Collective name"].get<std::string>(),
                                   a["Bytes"].get<int64_t>())
                      .second)
          << "the sequence number comes twice: " << a;
      EXPECT_EQ(a["Process Group Ranks"], "[0, 1]");
    }
  }
  ASSERT_THAT(calls, SizeIs(2));
  EXPECT_FALSE(calls[0].empty());
  EXPECT_EQ(calls[0], calls[1]);
  // Gradients of all parameters in fp32 sums go over once a step: the model's size in bytes.
  const auto& groups = s["communication"]["groups"];
  int64_t reduced = 0;
  for (const auto& g : groups)
    if (g["type"] == "reduce_scatter" || g["type"] == "all_reduce")
      reduced += g["bytes"].get<int64_t>();
  EXPECT_GT(reduced, 0);
  EXPECT_THAT(s["communication"]["mismatches"], IsEmpty());
}

TEST_F(ProfiledRuns, APipelineShowsItsSchedule) {
  train(
      "[parallel]\npipeline = 2\n[profile]\nmode = \"static\"\nwindows = [[2, 4]]\nranks = [-1]\n",
      "--nproc 2");
  const auto s = summary();
  expect_steps_add_up(s);
  std::set<std::string> slots;
  for (const auto& file : traces())
    for (const auto& name : names(events(read_trace(file), "user_annotation")))
      if (name.find(" stage ") != std::string::npos) slots.insert(name);
  std::set<std::string> expected;
  for (const char* kind : {"F", "B"})
    for (int stage = 0; stage < 2; ++stage)
      for (int m = 0; m < 4; ++m)
        expected.insert(fmt::format("{} stage {} chunk 0 micro-batch {}", kind, stage, m));
  EXPECT_EQ(slots, expected);
  EXPECT_THAT(s["findings"], IsEmpty()) << s["findings"];
}

TEST_F(ProfiledRuns, AnUnwritableFolderIsAWarning) {
  train("[profile]\nmode = \"static\"\nwindows = [[2, 3]]\nsave_path = \"/proc/traces\"\n");
  EXPECT_THAT(read_file(folder_ / "stderr"),
              AllOf(HasSubstr("no trace of steps 2 to 2"), HasSubstr("/proc/traces"),
                    HasSubstr("training goes on")));
  EXPECT_THAT(losses(), SizeIs(5));
}

TEST_F(ProfiledRuns, ARunThatEndsInsideAWindowWritesWhatItHas) {
  train("[profile]\nmode = \"static\"\nwindows = [[4, 100]]\n");
  ASSERT_THAT(traces(), SizeIs(1));
  EXPECT_EQ(read_trace(traces()[0])["truncated"], true);
  EXPECT_THAT(steps_of(summary(), 0), ElementsAre(4, 5));
}

TEST_F(ProfiledRuns, AToolsJsonCountsFromTheFirstStepOfTheProcess) {
  write_file_atomically(folder_ / "tools.json", R"({"profile": {"enable": true, "ranks": [0],
      "static_param": {"start_step": 1, "end_step": 3, "save_path": "./npu_profiling",
                       "record_shapes": true}}})");
  train("", fmt::format("--tools-json {}/tools.json", folder_.string()));
  const auto files = traces("out/npu_profiling");
  ASSERT_THAT(files, SizeIs(1));
  const auto trace = read_trace(files[0]);
  EXPECT_EQ(trace["record_shapes"], 1);
  const auto scopes = names(events(trace, "user_annotation"));
  EXPECT_THAT(scopes, Contains("ProfilerStep#2"));
  EXPECT_THAT(scopes, Contains("ProfilerStep#3"));
  EXPECT_THAT(scopes, Not(Contains("ProfilerStep#4")));
}

TEST_F(ProfiledRuns, StartStopAndStatusSpeakToARunningTraining) {
  const auto file = run_file("[profile]\nmode = \"dynamic\"\n", 1000000);
  auto training = start(file);
  ASSERT_TRUE(training.until([&] { return fs::exists(folder_ / "out/metrics.jsonl"); })) << said();
  const auto out = (folder_ / "out").string();
  EXPECT_THAT(run("profile status " + out).out, HasSubstr("IDLE"));
  const auto first = run("profile start " + out + " --steps 2 --ranks all --wait 120");
  EXPECT_EQ(first.status, 0) << first.err;
  EXPECT_THAT(first.out, HasSubstr(".pt.trace.json.gz"));
  const auto second = run("profile start " + out + " --steps 100000 --ranks 0 --no-wait");
  EXPECT_EQ(second.status, 0) << second.err;
  const auto stopped = run("profile stop " + out + " --wait 120");
  EXPECT_EQ(stopped.status, 0) << stopped.err;
  const auto late = run("profile start " + out + " --at 1");
  EXPECT_EQ(late.status, 1);
  EXPECT_THAT(late.err, HasSubstr("step 1 is over"));
  std::string logs;
  for (const auto& log : fs::directory_iterator(folder_ / "out/profile/log"))
    logs += log.path().filename().string() + ": " + read_file(log.path());
  EXPECT_THAT(
      logs, AllOf(HasSubstr("_monitor.log: "), HasSubstr("_rank_0.log: "),
                  HasSubstr("_rank_1.log: "), HasSubstr("written: "), HasSubstr("step 1 is over")));
  kill(training.pid(), SIGTERM);
  EXPECT_EQ(training.wait(), 75) << said();

  std::map<std::string, std::set<std::string>> steps;  // by file: windows of one rank
  for (const auto& trace : traces()) {
    auto& mine = steps[trace.filename().string()];
    for (const auto& name : names(events(read_trace(trace), "user_annotation")))
      if (name.starts_with("ProfilerStep#")) mine.insert(name);
  }
  ASSERT_THAT(steps, SizeIs(3));
  // the first request: both ranks, the same two steps
  const auto a = steps.begin()->second, b = std::prev(steps.end())->second;
  EXPECT_THAT(a, SizeIs(2));
  EXPECT_EQ(a, b);
}

TEST_F(ProfiledRuns, ARunWithoutAWatchedFileIsNamed) {
  train("");
  const auto outcome = run("profile start " + (folder_ / "out").string());
  EXPECT_EQ(outcome.status, 2);
  EXPECT_THAT(outcome.err, HasSubstr("profile.mode = \"dynamic\""));
}

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  return triptych::run_tests_on_made(argc, argv);
}
