#include "profile/config_watch.h"

#include <chrono>
#include <utility>

#include "base/files.h"
#include "base/format.h"
#include "base/log.h"

namespace triptych {

namespace {
constexpr uint64_t kLimitBytes = uint64_t{1} << 20;
}

ConfigWatch::ConfigWatch(std::filesystem::path folder, const ProfileOptions& options, double poll_s,
                         std::unique_ptr<WatchLog> log)
    : file_(std::move(folder) / kDynamicConfigName),
      options_(options),
      poll_s_(poll_s),
      log_(std::move(log)) {
  make_folders(file_.parent_path());
  if (!std::filesystem::exists(file_))
    write_file_atomically(file_, dump_json(dynamic_config(options), 2) + "\n");
  seen_ = stamp();
  if (log_) log_->write(fmt::format("watching {} every {} s", file_.string(), poll_s_));
  thread_ = std::thread([this] { run(); });
}

ConfigWatch::~ConfigWatch() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

std::string ConfigWatch::newest() const {
  const std::lock_guard lock(mutex_);
  return newest_;
}

ConfigWatch::Stamp ConfigWatch::stamp() const {
  struct stat info{};
  if (::stat(file_.c_str(), &info) != 0) return {};
  return {info.st_mtim.tv_sec, info.st_mtim.tv_nsec, info.st_size, info.st_ino};
}

void ConfigWatch::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    changed_.wait_for(lock, std::chrono::duration<double>(poll_s_));
    if (stopping_) return;
    lock.unlock();
    look();
    ++looks_;
    lock.lock();
  }
}

void ConfigWatch::look() {
  const auto now = stamp();
  if (now == seen_ || now.size < 0) return;
  seen_ = now;
  try {
    auto text = read_file(file_, kLimitBytes);
    read_dynamic_request(parse_json(text, file_.string()), file_.string(), options_);
    const std::lock_guard lock(mutex_);
    newest_ = std::move(text);
    const auto number = count_.fetch_add(1, std::memory_order_relaxed) + 1;
    if (log_) log_->write(fmt::format("request {}: {}", number, newest_));
  } catch (const std::exception& error) {
    log_warning("profile: {}; the request is passed over", error.what());
    if (log_) log_->write(fmt::format("passed over: {}", error.what()));
  }
}

}  // namespace triptych
