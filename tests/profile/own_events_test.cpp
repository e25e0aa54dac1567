#include "profile/own_events.h"

#include <gmock/gmock.h>

#include <map>

#include "base/json.h"

namespace triptych {
namespace {

using testing::ElementsAre;

RecordedCall message(int64_t begin_ns, int64_t end_ns) {
  RecordedCall recorded;
  recorded.thread = 7;
  recorded.call.group = "pipeline", recorded.call.tag = "pp", recorded.call.type = "recv";
  recorded.call.members = {0, 1};
  recorded.call.src = 0, recorded.call.dst = 1;
  recorded.call.begin_ns = begin_ns, recorded.call.end_ns = end_ns;
  return recorded;
}

TEST(OwnEvents, MessagesUnderWayAtOnceHaveLanesOfTheirOwn) {
  Records records;
  // As they are completed: the first to begin is the last to end.
  for (const auto& [begin, end] : {std::pair{2000, 3000}, {1000, 5000}, {4000, 6000}, {5000, 9000}})
    records.calls.push_back(message(begin, end));
  auto text = own_events(records, {}, 0, 3);
  text.back() = ' ';
  std::map<int64_t, std::vector<std::pair<double, double>>> lanes;
  std::map<int64_t, std::string> names;
  for (const auto& e : Json::parse("[" + text + "]")) {
    if (e["ph"] == "X") lanes[e["tid"]].emplace_back(e["ts"], e["dur"]);
    if (e["name"] == "thread_name") names[e["tid"]] = e["args"]["name"];
  }
  ASSERT_EQ(lanes.size(), 2);
  EXPECT_THAT(lanes.begin()->second, ElementsAre(std::pair(1.0, 4.0), std::pair(5.0, 4.0)));
  EXPECT_THAT(lanes.rbegin()->second, ElementsAre(std::pair(2.0, 1.0), std::pair(4.0, 2.0)));
  for (const auto& [lane, list] : lanes) EXPECT_EQ(names[lane], "communication: pipeline recv");
}

}  // namespace
}  // namespace triptych
