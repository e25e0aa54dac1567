// The watched file of dynamic collection.

#include <gmock/gmock.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "base/clock.h"
#include "base/error.h"
#include "base/files.h"
#include "profile/config_watch.h"
#include "support/scratch.h"
#include "train/dynamic_profile.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

DynamicRequest read(const std::string& text, const ProfileOptions& options = {}) {
  return read_dynamic_request(parse_json(text, "config"), "config", options);
}

TEST(DynamicRequest, TheFileOfARunAsksForWhatTheRunFileSays) {
  ProfileOptions options;
  options.ranks = {1, 3};
  options.level = 2;
  options.with_memory = true;
  options.with_cpu = false;
  const auto request = read_dynamic_request(dynamic_config(options), "config", options);
  EXPECT_THAT(request.ranks, ElementsAre(1, 3));
  EXPECT_EQ(request.level, 2);
  EXPECT_TRUE(request.with_memory);
  EXPECT_FALSE(request.with_cpu || request.record_shapes || request.stop);
  EXPECT_EQ(request.steps, 1);
  EXPECT_TRUE(request.folder.empty());
  options.ranks = {-1};
  EXPECT_THAT(read_dynamic_request(dynamic_config(options), "config", options).ranks,
              ElementsAre(-1));
}

TEST(DynamicRequest, KeysOfTorchNpu) {
  const auto request = read(R"({"activities": ["cpu", "NPU"], "prof_dir": "p", "active": 3,
      "warmup": 2, "start_step": 7, "is_rank": true, "rank_list": [0, 2], "record_shapes": true,
      "profile_memory": true, "metadata": {"who": "me"}, "gc_detect_threshold": null,
      "experimental_config": {"profiler_level": "Level2", "l2_cache": false}})");
  EXPECT_EQ(request.steps, 3);
  EXPECT_EQ(request.warmup, 2);
  EXPECT_EQ(request.start_step, 7);
  EXPECT_THAT(request.ranks, ElementsAre(0, 2));
  EXPECT_TRUE(request.record_shapes && request.with_memory && request.with_cpu);
  EXPECT_EQ(request.level, 2);
  EXPECT_EQ(request.folder, "p");
  EXPECT_EQ(request.metadata, R"({"who":"me"})");
}

TEST(DynamicRequest, ActiveThatIsNoPositiveNumberIsOne) {
  EXPECT_EQ(read(R"({"active": 0})").steps, 1);
  EXPECT_EQ(read(R"({"active": "5"})").steps, 1);
}

TEST(DynamicRequest, WrongTypesAreNamed) {
  EXPECT_THAT([] { read(R"({"is_rank": 1})"); },
              testing::ThrowsMessage<DataError>(HasSubstr("'is_rank' must be true or false")));
  EXPECT_THAT([] { read(R"({"is_rank": true, "rank_list": [-1]})"); },
              testing::ThrowsMessage<DataError>(HasSubstr("'rank_list' must hold ranks")));
  EXPECT_THAT([] { read(R"({"activities": ["TPU"]})"); },
              testing::ThrowsMessage<DataError>(HasSubstr("holds \"TPU\"")));
  EXPECT_THAT([] { read("[]"); },
              testing::ThrowsMessage<DataError>(HasSubstr("must be a JSON object")));
}

class Watch : public testing::Test {
 protected:
  fs::path file() const { return folder_ / kDynamicConfigName; }
  static constexpr double kPoll = 0.01;

  /// After a look that began after this call: the one under way, if any, is waited for as well.
  static int64_t count_after_a_look(const ConfigWatch& watch) {
    constexpr double kLimitS = 60;  // a look takes microseconds, a busy machine seconds
    const auto enough = watch.looks() + 2;
    for (const auto end = steady_seconds() + kLimitS; watch.looks() < enough;) {
      if (steady_seconds() > end) fail<Error>("nobody looks at the file");
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return watch.count();
  }
  const Scratch scratch_;
  const fs::path folder_ = scratch_ / "profile";  // not there yet
};

TEST_F(Watch, WritesTheFileAndThatAsksForNothing) {
  const ConfigWatch watch(folder_, {}, kPoll);
  EXPECT_EQ(read_json(file())["active"], 1);
  EXPECT_EQ(count_after_a_look(watch), 0);
}

TEST_F(Watch, AFileThatIsThereStaysAndAsksForNothing) {
  make_folders(folder_);
  write_file_atomically(file(), R"({"active": 4})");
  const ConfigWatch watch(folder_, {}, kPoll);
  EXPECT_EQ(count_after_a_look(watch), 0);
  EXPECT_EQ(read_file(file()), R"({"active": 4})");
}

TEST_F(Watch, EveryEditIsARequestAlsoWithinOneSecond) {
  const ConfigWatch watch(folder_, {}, kPoll);
  for (int64_t n = 1; n <= 3; ++n) {
    // the same size each time: only time and inode tell
    write_file_atomically(file(), R"({"active": )" + std::to_string(n) + "}");
    ASSERT_EQ(count_after_a_look(watch), n);
    EXPECT_EQ(watch.newest(), R"({"active": )" + std::to_string(n) + "}");
  }
}

TEST_F(Watch, WhatCannotBeReadIsPassedOver) {
  const ConfigWatch watch(folder_, {}, kPoll);
  write_file_atomically(file(), R"({"active": )");
  EXPECT_EQ(count_after_a_look(watch), 0);
  write_file_atomically(file(), R"({"active": 2})");
  EXPECT_EQ(count_after_a_look(watch), 1);
}

TEST_F(Watch, ItsLogTellsOfRequestsAndOfWhatWasPassedOver) {
  const auto log = watch_log_path(folder_, "host0", 77, -1);
  EXPECT_EQ(log, folder_ / "log/dp_host0_77_monitor.log");
  {
    const ConfigWatch watch(folder_, {}, kPoll, std::make_unique<WatchLog>(log));
    write_file_atomically(file(), R"({"active": )");
    EXPECT_EQ(count_after_a_look(watch), 0);
    write_file_atomically(file(), R"({"active": 2})");
    EXPECT_EQ(count_after_a_look(watch), 1);
  }
  const auto text = read_file(log);
  EXPECT_THAT(text, HasSubstr("watching "));
  EXPECT_THAT(text, HasSubstr("passed over: " + file().string()));
  EXPECT_THAT(text, HasSubstr(R"(request 1: {"active": 2})"));
}

TEST_F(Watch, ALogKeepsItsLimitAndOneBackup) {
  const auto file = watch_log_path(folder_, "h", 1, 3);
  EXPECT_EQ(file.filename(), "dp_h_1_rank_3.log");
  WatchLog log(file, 300);
  for (int i = 0; i < 40; ++i) log.write("line\n" + std::to_string(i));
  EXPECT_LE(fs::file_size(file), 300u);
  EXPECT_LE(fs::file_size(file.string() + ".1"), 300u);
  EXPECT_FALSE(fs::exists(file.string() + ".2"));
  EXPECT_THAT(read_file(file), testing::EndsWith("Z line 39\n"));
  // Where it cannot be written nothing happens.
  WatchLog("/proc/none/log").write("lost");
}

}  // namespace
}  // namespace triptych
