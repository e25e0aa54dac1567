#pragma once

// Records whose lengths are written in them, a processor that counts its calls, and what a rank
// got.

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "data/loader.h"

namespace triptych {

/// A question "LENGTH WORD" becomes LENGTH tokens; the answer is its number. Words: bad (planning
/// finds it), corrupt (decoding does), broken (decoding fails otherwise).
class CountingProcessor : public Processor {
 public:
  SampleSize measure(const Conversation& conversation) const override {
    ++measured;
    const auto text = question(conversation);
    if (text.find("bad") != std::string::npos) fail<DataError>(conversation.origin, ": bad sample");
    return {length(text), length(text) - 1, bytes_per_sample};
  }

  Sample make(const Conversation& conversation) const override {
    const auto text = question(conversation);
    const auto now = ++decoding;
    auto seen = most_at_once.load();
    while (now > seen && !most_at_once.compare_exchange_weak(seen, now)) {
    }
    if (delay_us > 0) {
      // Later samples are often ready earlier.
      std::this_thread::sleep_for(std::chrono::microseconds(delay_us * (1 + length(text) % 5)));
    }
    --decoding;
    ++made;
    if (text.find("corrupt") != std::string::npos)
      fail<DataError>(conversation.origin, ": corrupt");
    if (text.find("broken") != std::string::npos) fail<Error>(conversation.origin, ": broken");
    return make_without_pixels(conversation);
  }

  Sample make_without_pixels(const Conversation& conversation) const override {
    auto sample = make_blank(conversation);
    for (size_t i = 1; i < sample.tokens.size(); ++i) sample.labels[i] = sample.tokens[i];
    return sample;
  }

  Sample make_blank(const Conversation& conversation) const override {
    const auto text = question(conversation);
    const auto& answer = conversation.messages.back().parts.front().text;
    Sample sample;
    sample.tokens.assign(static_cast<size_t>(length(text)), std::stoi(answer));
    sample.labels.assign(sample.tokens.size(), static_cast<int32_t>(kIgnoreLabel));
    sample.origin = conversation.origin;
    return sample;
  }

  uint64_t bytes_per_sample = 0;
  int64_t delay_us = 0;
  mutable std::atomic<int64_t> measured = 0, made = 0, decoding = 0, most_at_once = 0;

 private:
  static const std::string& question(const Conversation& conversation) {
    return conversation.messages.front().parts.front().text;
  }
  static int32_t length(const std::string& text) { return std::stoi(text); }
};

/// Files of such records.
class Loaders : public testing::Test {
 protected:
  Loaders() : folder_(testing::TempDir() + "load_loader_" + std::to_string(getpid())) {
    set_log_level(LogLevel::kError);
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~Loaders() override { std::filesystem::remove_all(folder_); }

  /// `words[i]` is record i's word, if there is one.
  Dataset dataset(int64_t records, const std::vector<std::pair<int64_t, std::string>>& words = {},
                  int64_t sources = 1) const {
    std::vector<RecordSource> all;
    for (int64_t s = 0; s < sources; ++s) {
      const auto name = std::to_string(s) + ".jsonl";
      std::filesystem::remove(folder_ / name);  // an earlier dataset may have it mapped
      std::ofstream file(folder_ / name);
      for (int64_t i = 0; i < records; ++i) {
        const auto x =
            uniform({static_cast<uint64_t>(s), RandomStream::kSampling}, static_cast<uint64_t>(i));
        std::string word;
        for (const auto& [record, w] : words) word += record == i ? " " + w : "";
        file << "{\"query\": \"" << 2 + static_cast<int64_t>(x * 60) << word
             << "\", \"response\": \"" << s * records + i << "\"}\n";
      }
      all.push_back({.path = name});
    }
    return Dataset(std::move(all), folder_);
  }

  std::filesystem::path folder_;
};

/// What a rank got in one step, as "micro-batch.row: index index".
inline std::vector<std::vector<uint64_t>> rows_of(const StepBatch& batch) {
  std::vector<std::vector<uint64_t>> rows;
  for (const auto& micro_batch : batch.micro_batches) {
    for (const auto& row : micro_batch.rows) {
      rows.emplace_back();
      for (const auto& sample : row.samples) rows.back().push_back(sample.index);
    }
  }
  return rows;
}

}  // namespace triptych
