#include "base/files.h"

#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "base/error.h"
#include "support/scratch.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;
using testing::EndsWith;
using testing::HasSubstr;
using testing::ThrowsMessage;

class Files : public testing::Test {
 protected:
  size_t entries() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_.path()), {}));
  }
  const Scratch folder_;
};

TEST_F(Files, AtomicWriteReplacesAndLeavesNothingBehind) {
  const fs::path path = folder_ / "state.json";
  write_file_atomically(path, "one");
  write_file_atomically(path, "two");
  EXPECT_EQ(read_file(path), "two");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(Files, AtomicWriteThatFailsKeepsTheOldFile) {
  const fs::path path = folder_ / "state.json";
  write_file_atomically(path, "old");
  // A file size limit stands in for a full disk: write() fails half-way.
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{4096, 4096};
    setrlimit(RLIMIT_FSIZE, &limit);
    try {
      write_file_atomically(path, std::string(100000, 'x'));
    } catch (const Error& error) {
      _exit(std::string(error.what()).find("cannot be written: ") != std::string::npos ? 7 : 8);
    }
    _exit(9);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 7);
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(Files, MappedFileSeesTheBytes) {
  const fs::path path = folder_ / "x";
  write_file_atomically(path, std::string(10000, 'a') + "end");
  MappedFile file(path);
  EXPECT_EQ(file.size(), 10003u);
  EXPECT_THAT(std::string(file.text()), EndsWith("aend"));
  file.will_need(5000, 100000);
  MappedFile moved = std::move(file);
  EXPECT_EQ(moved.text().substr(10000), "end");
  EXPECT_EQ(file.size(), 0u);  // NOLINT: the moved-from state is part of the contract
}

TEST_F(Files, EmptyFileMapsToNothing) {
  write_file_atomically(folder_ / "empty", "");
  EXPECT_EQ(MappedFile(folder_ / "empty").text(), "");
}

TEST_F(Files, WrongPathsAreNamed) {
  EXPECT_THAT([&] { MappedFile(folder_ / "none"); },
              ThrowsMessage<Error>(EndsWith("none: cannot be read: No such file or directory")));
  EXPECT_THAT([&] { read_file(folder_.path()); },
              ThrowsMessage<Error>(HasSubstr(": is a folder, a file is expected")));
  EXPECT_THAT([&] { write_file_atomically(folder_ / "no" / "x", ""); },
              ThrowsMessage<Error>(HasSubstr("no/x: cannot be written: No such file")));
}

TEST_F(Files, LongFilesAreRefused) {
  write_file_atomically(folder_ / "x", "12345");
  EXPECT_THAT([&] { read_file(folder_ / "x", 4); },
              ThrowsMessage<Error>(HasSubstr("has 5 bytes, at most 4 are read")));
  EXPECT_THAT([&] { read_file("/proc/self/maps", 10); },  // no size known before reading
              ThrowsMessage<Error>(HasSubstr("is longer than 10 bytes")));
}

}  // namespace
}  // namespace triptych
