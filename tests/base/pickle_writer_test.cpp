#include "base/pickle_writer.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "base/files.h"
#include "base/format.h"

namespace triptych {
namespace {

std::string bytes_of(const std::function<void(PickleWriter&)>& write) {
  std::string bytes;
  PickleWriter pickle([&](std::string_view part) { bytes += part; });
  write(pickle);
  pickle.finish();
  return bytes;
}

// The opcodes themselves: protocol 4, one mark a container, a text once.
TEST(Pickle, IsWhatPythonWrites) {
  EXPECT_EQ(bytes_of([](PickleWriter& p) {
              p.begin_dict();
              p.text("a");
              p.begin_list();
              p.integer(1);
              p.text("a");
              p.none();
              p.boolean(true);
              p.end_list();
              p.end_dict();
            }),
            std::string("\x80\x04}(\x8c\x01"
                        "a\x94](K\x01h\x00N\x88"
                        "eu.",
                        19));
}

TEST(Pickle, NumbersTakeTheShortestForm) {
  const auto of = [](int64_t value) {
    return bytes_of([&](PickleWriter& p) { p.integer(value); }).substr(2);
  };
  EXPECT_EQ(of(255), "K\xff.");
  EXPECT_EQ(of(256), std::string("M\x00\x01.", 4));
  EXPECT_EQ(of(-1), "J\xff\xff\xff\xff.");
  EXPECT_EQ(of(int64_t{1} << 31), std::string("\x8a\x05\x00\x00\x00\x80\x00.", 8));
  EXPECT_EQ(of(-(int64_t{1} << 40)), std::string("\x8a\x06\x00\x00\x00\x00\x00\xff.", 9));
  // The highest bit of an address is no sign.
  EXPECT_EQ(bytes_of([](PickleWriter& p) { p.address(UINT64_MAX); }).substr(2),
            "\x8a\x09" + std::string(8, '\xff') + std::string("\0.", 2));
}

TEST(Pickle, PythonReadsItBack) {
  const auto file = std::filesystem::temp_directory_path() / fmt::format("pickle_{}", ::getpid());
  write_file_atomically(file, bytes_of([](PickleWriter& p) {
                          p.begin_dict();
                          p.text("numbers");
                          p.begin_list();
                          for (int64_t i = 0; i < 2500; ++i) p.integer(i * i * i * 1000 - 40);
                          p.end_list();
                          p.text("kept");
                          p.begin_list();
                          p.begin_list();
                          p.real(0.1);
                          p.end_list();
                          const auto kept = p.keep();
                          for (int i = 0; i < 300; ++i) p.text(fmt::format("text {}", i));
                          p.again(kept);
                          p.end_list();
                          p.text("long");
                          p.text(std::string(70000, 'x'));
                          p.text("many");
                          p.begin_dict();
                          for (int i = 0; i < 1500; ++i) {
                            p.text(fmt::format("key {}", i));
                            p.boolean(i % 2 == 0);
                          }
                          p.end_dict();
                          p.text("top");
                          p.address(0xffff'8000'0000'0001);
                          p.end_dict();
                        }));
  const auto program = fmt::format(
      "import pickle\n"
      "d = pickle.load(open('{}', 'rb'))\n"
      "assert d['numbers'] == [i**3 * 1000 - 40 for i in range(2500)]\n"
      "assert d['kept'][0] == [0.1] and d['kept'][-1] is d['kept'][0] and len(d['kept']) == 302\n"
      "assert d['kept'][300] == 'text 299'\n"
      "assert d['long'] == 'x' * 70000 and d['top'] == 0xffff800000000001\n"
      "assert d['many'] == {{f'key {{i}}': i % 2 == 0 for i in range(1500)}}\n",
      file.string());
  write_file_atomically(file.string() + ".py", program);
  EXPECT_EQ(std::system(fmt::format("python3 {}.py", file.string()).c_str()), 0);
  std::filesystem::remove(file);
  std::filesystem::remove(file.string() + ".py");
}

TEST(Pickle, UnfinishedContainersAreBugs) {
  PickleWriter pickle([](std::string_view) {});
  pickle.begin_dict();
  pickle.text("key");
  EXPECT_THROW(pickle.end_dict(), Error);
  EXPECT_THROW(pickle.end_list(), Error);
  EXPECT_THROW(pickle.finish(), Error);
}

}  // namespace
}  // namespace triptych
