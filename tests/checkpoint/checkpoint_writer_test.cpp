#include "checkpoint/checkpoint_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <atomic>
#include <csignal>
#include <future>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "checkpoint/checkpoint_folder.h"
#include "checkpoint/optimizer_state.h"
#include "save_for_test.h"
#include "support/scratch.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

at::Tensor whole_state(const Checkpoint& checkpoint, const std::string& name,
                       const std::string& kind) {
  const OptimizerStateReader reader(checkpoint.optimizer());
  auto values = at::empty(reader.shape(name));
  reader.read_range(name, kind, 0, values.numel(), values);
  return values;
}

/// Everything in the checkpoint was saved by this step.
void expect_saved_by(const Checkpoint& checkpoint, double value) {
  const SmallModel want(value);
  const auto hub = HubFolder::open(checkpoint.weights());
  for (const std::string name : {"a", "b"}) {
    EXPECT_TRUE(hub.read(name).equal(want.named(name)));
    for (const char* kind : {"master", "exp_avg", "exp_avg_sq"}) {
      EXPECT_TRUE(whole_state(checkpoint, name, kind).equal(want.named(name))) << name << kind;
    }
  }
}

TEST(CheckpointWriter, WritesInTheBackgroundWhatWasThereAtSave) {
  const Scratch scratch;
  SmallModel model;
  CheckpointWriter writer({.output = scratch.path(), .keep = 0});
  for (const int64_t step : {1, 2, 3, 4, 5}) {
    model.fill(static_cast<double>(step));
    writer.save(step, model.weights(), model.pieces(), Json::object());
    writer.before_update();
    model.fill(-1);  // the optimizer's next step
  }
  writer.wait();
  EXPECT_FALSE(writer.busy());
  for (const int64_t step : listed_checkpoints(scratch.path())) {
    const auto folder = scratch.path() / "checkpoints" / checkpoint_name(step);
    expect_saved_by(open_checkpoint(folder, true), static_cast<double>(step));
  }
  EXPECT_THAT(listed_checkpoints(scratch.path()), ElementsAre(1, 2, 3, 4, 5));
}

TEST(CheckpointWriter, CopiesOnlyWhatIsNotYetWritten) {
  const Scratch scratch;
  SmallModel model(4);
  CheckpointWriter writer({.output = scratch.path()});
  auto pieces = model.pieces();
  std::promise<void> started, go_on;
  // The writing thread stands still inside the first piece; weights are on disk by then.
  pieces[0].values = [&, values = pieces[0].values] {
    started.set_value();
    go_on.get_future().wait();
    return values();
  };
  writer.save(4, model.weights(), pieces, Json::object());
  started.get_future().wait();
  EXPECT_TRUE(writer.busy());
  auto update = std::async(std::launch::async, [&] { writer.before_update(); });
  EXPECT_EQ(update.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  go_on.set_value();
  update.get();
  model.fill(-1);
  writer.wait();
  expect_saved_by(*find_newest_complete(scratch.path(), true), 4);
  const int64_t state_bytes = 3 * (model.a.nbytes() + model.b.nbytes());
  EXPECT_EQ(writer.statistics().copied_bytes, state_bytes - static_cast<int64_t>(model.a.nbytes()));
}

TEST(CheckpointWriter, TensorsOfItsOwnAreNeverCopied) {
  const Scratch scratch;
  SmallModel model(2);
  auto weights = model.weights();
  weights.provider = [&](const std::string& name) { return model.named(name).clone(); };
  auto pieces = model.pieces();
  std::atomic<int> calls = 0;
  for (auto& piece : pieces) {
    piece.values = [&calls, values = piece.values] { return ++calls, values().clone(); };
  }
  CheckpointWriter writer({.output = scratch.path()});
  writer.save(2, weights, pieces, Json::object());
  writer.before_update();
  writer.wait();
  EXPECT_EQ(writer.statistics().copied_bytes, 0);
  EXPECT_EQ(calls, 6);  // each once
  expect_saved_by(*find_newest_complete(scratch.path()), 2);
}

TEST(CheckpointWriter, WeightsKeepTheLayoutTheyWereReadWith) {
  const Scratch scratch;
  const auto half = at::randn({10, 10}).to(at::kBFloat16);
  const auto layout =
      make_layout({{"x", at::kBFloat16, {10, 10}}, {"y", at::kBFloat16, {10, 10}}}, 200);
  save_hub_folder(scratch / "model", layout, [&](const auto&) { return half; });
  const auto hub = HubFolder::open(scratch / "model");
  CheckpointWriter writer({.output = scratch.path(), .async = false});
  writer.save(1,
              {.layout = hub.layout(),
               .provider = [&](const auto& name) { return hub.read(name, at::kFloat); }},
              {}, Json::object());
  for (const char* name : {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                           "model.safetensors.index.json"}) {
    EXPECT_EQ(read_file(scratch / "model" / name),
              read_file(scratch / "checkpoints/step_00000001/weights" / name));
  }
}

/// Runs `body(rank, agree)` on `world` threads that stand for ranks; what each threw.
std::vector<std::string> on_ranks(int world, const std::function<void(int, Agree)>& body) {
  ThreadAgreement agreement(world);
  std::vector<std::string> errors(world);
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < world; ++rank) {
    ranks.emplace_back([&, rank] {
      try {
        body(rank, std::ref(agreement));
      } catch (const std::exception& error) {
        errors[rank] = error.what();
      }
    });
  }
  for (auto& rank : ranks) rank.join();
  return errors;
}

TEST(CheckpointWriter, RanksShareTheWork) {
  const Scratch scratch;
  const SmallModel model(7);
  auto weights = model.weights();
  weights.layout = make_layout({{"a", at::kFloat, {40, 30}}, {"b", at::kFloat, {500}}}, 4000);
  std::atomic<int> asked = 0;
  weights.provider = [&](const std::string& name) { return ++asked, model.named(name).detach(); };
  for (const bool collective : {false, true}) {
    asked = 0;
    weights.collective = collective;
    const auto errors = on_ranks(3, [&](int rank, Agree agree) {
      CheckpointWriter writer({.output = scratch.path()}, rank, 3, std::move(agree));
      writer.save(collective ? 8 : 7, weights, model.pieces(rank, 3), Json::object());
      writer.before_update();
      writer.wait();
    });
    EXPECT_THAT(errors, ElementsAre("", "", ""));
    EXPECT_EQ(asked, collective ? 6 : 2);
    const auto found = *find_newest_complete(scratch.path(), true);
    EXPECT_EQ(found.step, collective ? 8 : 7);
    expect_saved_by(found, 7);
    EXPECT_EQ(std::distance(fs::directory_iterator(found.optimizer()), {}), 4);  // 3 files, 1 index
  }
}

TEST(CheckpointWriterErrors, OneRanksFailureStopsAllAndLeavesNothing) {
  const Scratch scratch;
  const SmallModel model(7);
  const auto errors = on_ranks(3, [&](int rank, Agree agree) {
    CheckpointWriter writer({.output = scratch.path()}, rank, 3, std::move(agree));
    auto pieces = model.pieces(rank, 3);
    if (rank == 1) pieces[2].values = []() -> at::Tensor { fail("rank 1 is out of luck"); };
    writer.save(7, model.weights(), pieces, Json::object());
    writer.wait();
  });
  EXPECT_THAT(errors, ElementsAre(HasSubstr("another rank could not save"), "rank 1 is out of luck",
                                  HasSubstr("another rank could not save")));
  EXPECT_TRUE(fs::is_empty(scratch / "checkpoints"));
}

TEST(CheckpointWriterErrors, AreThrownByTheNextCallOnceAndTheNextSaveWorks) {
  const Scratch scratch;
  SmallModel model(1);
  CheckpointWriter writer({.output = scratch.path()});
  auto pieces = model.pieces();
  pieces.back().values = []() -> at::Tensor { fail("no values"); };
  writer.save(1, model.weights(), pieces, Json::object());
  EXPECT_THAT([&] { writer.wait(); }, ThrowsMessage<Error>("no values"));
  EXPECT_NO_THROW(writer.wait());
  writer.save(2, model.weights(), model.pieces(), Json::object());
  EXPECT_NO_THROW(writer.before_update());
  writer.wait();
  EXPECT_THAT(listed_checkpoints(scratch.path()), ElementsAre(2));
}

/// Files of this process may not grow beyond `bytes` while it lives.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

TEST(CheckpointWriterErrors, AFailedWriteLosesNothing) {
  const Scratch scratch;
  SmallModel model(1);
  for (const bool async : {false, true}) {
    CheckpointWriter writer({.output = scratch.path(), .keep = 1, .async = async});
    model.fill(1);
    writer.save(1, model.weights(), model.pieces(), Json::object());
    writer.wait();
    {
      const FileSizeLimit limit(10'000);  // the weights fit, the states do not
      model.fill(2);
      EXPECT_THAT(
          [&] {
            writer.save(2, model.weights(), model.pieces(), Json::object());
            writer.wait();
          },
          ThrowsMessage<Error>(
              AllOf(HasSubstr("rank_00000-of-00001.safetensors: cannot be written: File too large"),
                    HasSubstr("the file needs 0.000 GB"))));
    }
    EXPECT_EQ(std::distance(fs::directory_iterator(scratch / "checkpoints"), {}), 2);
    expect_saved_by(*find_newest_complete(scratch.path(), true), 1);
  }
}

TEST(CheckpointWriterErrors, AFullDiskIsNamedAndLosesNothing) {
  const Scratch scratch;
  if (::mount("none", scratch.path().c_str(), "tmpfs", 0, "size=256k") != 0) {
    GTEST_SKIP()
        << "may not mount a small file system here; AFailedWriteLosesNothing covers the rest";
  }
  {
    const SmallModel model(1);
    auto big = model.weights();
    big.layout = make_layout({{"a", at::kFloat, {300'000}}});
    big.provider = [](const auto&) { return at::ones({300'000}); };
    CheckpointWriter writer({.output = scratch.path(), .keep = 1});
    writer.save(1, model.weights(), model.pieces(), Json::object());
    writer.save(2, big, {}, Json::object());
    EXPECT_THAT([&] { writer.wait(); },
                ThrowsMessage<Error>(AllOf(HasSubstr("No space left on device"),
                                           HasSubstr("needs 0.001 GB, free are"))));
    EXPECT_EQ(std::distance(fs::directory_iterator(scratch / "checkpoints"), {}), 2);
    expect_saved_by(*find_newest_complete(scratch.path(), true), 1);
  }
  ::umount(scratch.path().c_str());
}

TEST(CheckpointWriterErrors, ShapesAreCheckedBeforeAnythingIsWritten) {
  const Scratch scratch;
  const SmallModel model;
  auto weights = model.weights();
  weights.provider = [](const std::string&) { return at::zeros({2}); };
  CheckpointWriter writer({.output = scratch.path()});
  EXPECT_THAT(
      [&] { writer.save(1, weights, {}, Json::object()); },
      ThrowsMessage<Error>(HasSubstr("tensor 'a' is [2], its file's header says [40, 30]")));
  EXPECT_FALSE(fs::exists(scratch / "checkpoints"));
  EXPECT_THAT([] { CheckpointWriter two({.output = "x"}, 0, 2); },
              ThrowsMessage<Error>(HasSubstr("2 ranks need a way to agree")));
}

}  // namespace
}  // namespace triptych
