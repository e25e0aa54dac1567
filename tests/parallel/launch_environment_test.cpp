#include "parallel/launch_environment.h"

#include <gmock/gmock.h>

#include <map>

#include "base/error.h"

namespace triptych {
namespace {

using testing::HasSubstr;
using Table = std::map<std::string, std::string, std::less<>>;

GetVariable from(Table table) {
  return [table = std::move(table)](std::string_view name) -> std::optional<std::string> {
    const auto it = table.find(name);
    return it == table.end() ? std::nullopt : std::optional(it->second);
  };
}

struct Good {
  std::string name;
  Table variables;
  LaunchEnvironment want;
};
void PrintTo(const Good& row, std::ostream* out) { *out << row.name; }
class Launchers : public testing::TestWithParam<Good> {};

TEST_P(Launchers, AreRead) {
  const auto got = read_launch_environment(from(GetParam().variables));
  const auto& want = GetParam().want;
  EXPECT_EQ(got.launcher, want.launcher);
  EXPECT_EQ(got.rank, want.rank);
  EXPECT_EQ(got.world_size, want.world_size);
  EXPECT_EQ(got.local_rank, want.local_rank);
  EXPECT_EQ(got.local_world_size, want.local_world_size);
  EXPECT_EQ(got.address, want.address);
  EXPECT_EQ(got.port, want.port);
  EXPECT_EQ(got.store_fd, want.store_fd);
  EXPECT_EQ(got.processes_per_pod, want.processes_per_pod);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, Launchers,
    testing::Values(
        Good{"nothing", {}, {"none", 0, 1, 0, 1, "", 0}},
        Good{"an address alone starts nothing",
             {{"MASTER_ADDR", "h"}, {"MASTER_PORT", "1"}},
             {"none", 0, 1, 0, 1, "", 0}},
        Good{"torchrun",
             {{"RANK", "3"},
              {"WORLD_SIZE", "8"},
              {"LOCAL_RANK", "1"},
              {"LOCAL_WORLD_SIZE", "2"},
              {"MASTER_ADDR", "host"},
              {"MASTER_PORT", "29500"}},
             {"torchrun", 3, 8, 1, 2, "host", 29500}},
        Good{"own launcher, rank 0",
             {{"RANK", "0"},
              {"WORLD_SIZE", "2"},
              {"LOCAL_RANK", "0"},
              {"MASTER_ADDR", "127.0.0.1"},
              {"MASTER_PORT", "4000"},
              {"TRIPTYCH_STORE_FD", "5"}},
             {"torchrun", 0, 2, 0, 0, "127.0.0.1", 4000, 5}},
        Good{"torchrun before slurm",
             {{"RANK", "0"}, {"WORLD_SIZE", "1"}, {"LOCAL_RANK", "0"}, {"SLURM_PROCID", "4"}},
             {"torchrun", 0, 1, 0, 0, "", 0}},
        Good{"slurm",
             {{"SLURM_PROCID", "5"},
              {"SLURM_NTASKS", "16"},
              {"SLURM_LOCALID", "1"},
              {"SLURM_JOB_NODELIST", "rack[2-3]gpu[007-009,12],login"},
              {"SLURM_JOB_ID", "1234567"}},
             {"slurm", 5, 16, 1, 0, "rack2gpu007", 20000 + 1234567 % 20000}},
        Good{"salloc's shell is no task", {{"SLURM_NTASKS", "16"}}, {"none", 0, 1, 0, 1, "", 0}},
        Good{"open mpi",
             {{"OMPI_COMM_WORLD_RANK", "1"},
              {"OMPI_COMM_WORLD_SIZE", "2"},
              {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
              {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
              {"MASTER_ADDR", "a"},
              {"MASTER_PORT", "7"}},
             {"open mpi", 1, 2, 1, 2, "a", 7}},
        Good{"hydra",
             {{"PMI_RANK", "1"},
              {"PMI_SIZE", "2"},
              {"MPI_LOCALRANKID", "0"},
              {"MASTER_ADDR", "a"},
              {"MASTER_PORT", "7"}},
             {"hydra", 1, 2, 0, 0, "a", 7}},
        Good{"a pod of one process",
             {{"RANK", "1"},
              {"WORLD_SIZE", "3"},
              {"MASTER_ADDR", "job-master-0"},
              {"MASTER_PORT", "23456"}},
             {"pytorchjob", 1, 3, 0, 1, "job-master-0", 23456}},
        Good{"a pod of several, with the variables of newer operators",
             {{"RANK", "1"},
              {"WORLD_SIZE", "16"},
              {"MASTER_ADDR", "m"},
              {"MASTER_PORT", "23456"},
              {"PET_NNODES", "2"},
              {"PET_NODE_RANK", "1"},
              {"PET_NPROC_PER_NODE", "8"},
              {"PET_MASTER_ADDR", "m"},
              {"PET_MASTER_PORT", "23456"}},
             {"pytorchjob", 1, 2, 0, 1, "m", 23456, -1, false, 8}},
        Good{"a pod whose operator leaves the number to the program",
             {{"RANK", "0"},
              {"WORLD_SIZE", "2"},
              {"MASTER_ADDR", "m"},
              {"MASTER_PORT", "1"},
              {"PET_NPROC_PER_NODE", "auto"}},
             {"pytorchjob", 0, 2, 0, 1, "m", 1}}));

struct Bad {
  Table variables;
  std::string message;
};
class Incomplete : public testing::TestWithParam<Bad> {};

TEST_P(Incomplete, NamesWhatIsMissing) {
  EXPECT_THAT([&] { read_launch_environment(from(GetParam().variables)); },
              testing::ThrowsMessage<UsageError>(HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    Rows, Incomplete,
    testing::Values(
        Bad{{{"RANK", "0"}}, "WORLD_SIZE is missing, but RANK is set"},
        Bad{{{"RANK", "0"}, {"WORLD_SIZE", "2"}}, "LOCAL_RANK is missing"},
        Bad{{{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"LOCAL_RANK", "0"}}, "MASTER_ADDR is missing"},
        Bad{{{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"LOCAL_RANK", "0"}, {"MASTER_ADDR", "a"}},
            "MASTER_PORT is missing"},
        Bad{{{"RANK", "2"}, {"WORLD_SIZE", "2"}, {"LOCAL_RANK", "0"}}, "RANK=2 must be below"},
        Bad{{{"RANK", "x"}, {"WORLD_SIZE", "2"}, {"LOCAL_RANK", "0"}}, "RANK='x' is not a whole"},
        Bad{{{"SLURM_PROCID", "0"}}, "SLURM_NTASKS is missing, but SLURM_PROCID is set"},
        Bad{{{"OMPI_COMM_WORLD_RANK", "0"},
             {"OMPI_COMM_WORLD_SIZE", "2"},
             {"OMPI_COMM_WORLD_LOCAL_RANK", "0"}},
            "MASTER_ADDR is missing; open mpi started 2 processes"},
        Bad{{{"RANK", "0"},
             {"WORLD_SIZE", "5"},
             {"MASTER_ADDR", "m"},
             {"MASTER_PORT", "1"},
             {"PET_NNODES", "2"},
             {"PET_NPROC_PER_NODE", "4"}},
            "WORLD_SIZE=5 is neither PET_NNODES=2 nor that times PET_NPROC_PER_NODE=4"},
        Bad{{{"RANK", "2"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "m"}, {"MASTER_PORT", "1"}},
            "rank 2 of the pod must be below the number of pods, 2"}));

TEST(SlurmHosts, FirstOfEachBracket) {
  EXPECT_EQ(first_slurm_host("n1"), "n1");
  EXPECT_EQ(first_slurm_host("n1,n2"), "n1");
  EXPECT_EQ(first_slurm_host("n[3,5-9]x,n2"), "n3x");
  EXPECT_THROW(first_slurm_host("n[3"), UsageError);
  EXPECT_THROW(first_slurm_host(""), UsageError);
}

TEST(Threads, AreSharedOutButNeverZero) {
  EXPECT_EQ(threads_per_process(3, 8), 3);
  EXPECT_EQ(threads_per_process(0, 1 << 20), 1);
  EXPECT_EQ(threads_per_process(0, 1), usable_cores());
  EXPECT_GE(usable_cores(), 1);
}

}  // namespace
}  // namespace triptych
