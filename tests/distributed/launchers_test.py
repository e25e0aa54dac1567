"""Every launcher that the guide names starts ranks that give the losses of one process."""
import os
import subprocess
import sys
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True
from runs import COMMAND, Scratch, free_port, settings, train  # noqa: E402

TORCHRUN = Path(sys.executable).parent / "torchrun"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples/launch"
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
ONE_HOST = {"NODES": "1", "NODE_RANK": "0", "RANKS_PER_HOST": "2", "MASTER_ADDR": "127.0.0.1"}

# Starts two tasks with the variables that srun sets, and ends with the largest status.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
export SLURM_NTASKS=2 SLURM_NNODES=1
for task in 0 1; do SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_NODEID=0 "$@" & tasks+=($!); done
worst=0
for task in "${tasks[@]}"; do wait $task; status=$?; ((status > worst)) && worst=$status; done
exit $worst
"""


class Launchers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = Scratch()
        cls.addClassCleanup(cls.scratch.close)
        status, text = train(cls.scratch.run_file("one"))
        assert status == 0, text
        status, text = train(cls.scratch.run_file("own"), "--nproc", "2")
        assert status == 0, text

    def check(self, name):
        one, own, got = (self.scratch.losses(run) for run in ("one", "own", name))
        self.assertEqual(own, got)  # the same ranks, the same sums
        self.assertEqual(len(one), len(got))
        for step, (want, loss) in enumerate(zip(one, got), 1):
            # the sums over four micro-batches are taken in another order
            self.assertAlmostEqual(want, loss, delta=1e-5, msg=f"step {step}")

    def start_all(self, name, environments, words=()):
        """A process for each environment, as a launcher of clusters starts them."""
        file = self.scratch.run_file(name)
        processes = [subprocess.Popen([COMMAND, "train", file, *words], env={**os.environ, **environment}, text=True,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for environment in environments]
        texts = [process.communicate(timeout=120)[0] for process in processes]
        self.assertEqual([process.returncode for process in processes], [0] * len(processes), "\n".join(texts))
        self.check(name)

    def run_launcher(self, name, *words, environment=None):
        done = subprocess.run([*words, COMMAND, "train", self.scratch.run_file(name)], text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=120, env={**os.environ, **(environment or {})})
        self.assertEqual(done.returncode, 0, done.stdout)
        self.check(name)

    def launch_script(self, name, script, *words, standins=None, environment=None):
        """A script of examples/launch with the command, and stand-ins for what is not here, in front of PATH."""
        folder = self.scratch.folder / f"bin_{name}"
        folder.mkdir()
        (folder / "triptych").symlink_to(Path(COMMAND).absolute())
        (folder / "torchrun").symlink_to(TORCHRUN)
        for program, text in (standins or {}).items():
            (folder / program).write_text(text)
            (folder / program).chmod(0o755)
        return subprocess.run([EXAMPLES / script, *words], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=120, env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}",
                                                **(environment or {})})

    def test_own_launcher(self):
        self.check("own")

    def test_torchrun(self):
        self.run_launcher("torchrun", TORCHRUN, "--no-python", "--nproc-per-node=2", f"--master-port={free_port()}")

    def test_open_mpi(self):
        variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **AS_ROOT}
        self.run_launcher("open_mpi", "mpirun", "-np", "2", "--oversubscribe", "--bind-to", "none", environment=variables)

    def test_slurm_variables(self):
        # as srun sets them for each task; the address follows from the node list, the port from the job
        common = {"SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "localhost", "SLURM_JOB_ID": str(free_port() % 20000),
                  "SLURM_NNODES": "1", "SLURM_TASKS_PER_NODE": "2"}
        self.start_all("slurm", [{**common, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank),
                                  "SLURM_NODEID": "0"} for rank in range(2)])

    def test_hydra_variables(self):
        common = {"PMI_SIZE": "2", "MPI_LOCALNRANKS": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        self.start_all("hydra", [{**common, "PMI_RANK": str(rank), "MPI_LOCALRANKID": str(rank)} for rank in range(2)])

    def test_pods_of_one_process(self):
        common = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
        self.start_all("pods", [{**common, "RANK": str(rank)} for rank in range(2)])

    def test_a_pod_of_two_processes(self):
        self.start_all("pod", [{"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "RANK": "0",
                                "PET_NNODES": "1", "PET_NODE_RANK": "0", "PET_NPROC_PER_NODE": "2"}])

    def test_pods_that_say_their_number_of_processes(self):
        # an older operator: WORLD_SIZE counts pods, --nproc says what each starts
        self.start_all("nproc", [{"WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "RANK": "0"}],
                       ["--nproc", "2"])

    def test_script_of_torchrun(self):
        done = self.launch_script("torchrun_sh", "torchrun.sh", self.scratch.run_file("torchrun_sh"),
                                  environment={**ONE_HOST, "MASTER_PORT": str(free_port())})
        self.assertEqual(done.returncode, 0, done.stdout)
        self.check("torchrun_sh")

    def test_script_of_mpirun(self):
        hosts = self.scratch.folder / "hostfile"
        hosts.write_text("# one host\n\nlocalhost slots=2\n")
        done = self.launch_script("mpirun_sh", "mpirun.sh", self.scratch.run_file("mpirun_sh"), hosts, environment={
            "RANKS_PER_HOST": "2", "MASTER_PORT": str(free_port()), **AS_ROOT})
        self.assertEqual(done.returncode, 0, done.stdout)
        self.check("mpirun_sh")

    def test_script_of_our_own_launcher(self):
        # with two hosts that are one: what --master is for
        port = str(free_port())
        file = self.scratch.run_file("own_sh")
        with ThreadPoolExecutor() as threads:
            hosts = [threads.submit(self.launch_script, f"own_sh{rank}", "own_launcher.sh", file, environment={
                **ONE_HOST, "NODES": "2", "NODE_RANK": str(rank), "RANKS_PER_HOST": "1", "MASTER_PORT": port})
                for rank in range(2)]
        for host in hosts:
            self.assertEqual(host.result().returncode, 0, host.result().stdout)
        self.check("own_sh")

    def test_script_of_slurm(self):
        job = {"SLURM_JOB_ID": str(free_port() % 20000), "SLURM_JOB_NODELIST": "localhost,other"}
        done = self.launch_script("slurm_sh", "slurm.sbatch", self.scratch.run_file("slurm_sh"), environment=job,
                                  standins={"srun": SRUN})
        self.assertEqual(done.returncode, 0, done.stdout)
        self.check("slurm_sh")
        # a rank that was told to stop: the job is queued again; a failure is passed on
        for status, want, says in ((75, 0, "requeue " + job["SLURM_JOB_ID"]), (3, 3, "")):
            done = self.launch_script(f"slurm_{status}", "slurm.sbatch", "run.toml", environment=job, standins={
                "srun": f"#!/bin/bash\nexit {status}\n", "scontrol": '#!/bin/bash\necho "$@"\n'})
            self.assertEqual((done.returncode, done.stdout.strip()), (want, says))

    def test_manifest_of_a_pytorchjob(self):
        job = yaml.safe_load((EXAMPLES / "pytorchjob.yaml").read_text())
        self.assertEqual((job["apiVersion"], job["kind"]), ("kubeflow.org/v1", "PyTorchJob"))
        replicas = job["spec"]["pytorchReplicaSpecs"]
        pods = []
        for kind in ("Master", "Worker"):
            container, = (c for c in replicas[kind]["template"]["spec"]["containers"] if c["name"] == "pytorch")
            pods += [container["command"]] * replicas[kind]["replicas"]
        master = replicas["Master"]["template"]["spec"]["containers"][0]
        self.assertEqual(master["ports"][0]["name"], "pytorchjob-port")
        self.assertEqual(job["spec"]["nprocPerNode"], "8")
        # as the operator places two pods of one process each
        file = self.scratch.run_file("manifest")
        common = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(len(pods)),
                  "PET_NNODES": str(len(pods)), "PET_NPROC_PER_NODE": "1"}
        processes = []
        for rank, command in enumerate(pods):
            words = [{"triptych": COMMAND, "/runs/run.toml": str(file)}.get(word, word) for word in command]
            processes.append(subprocess.Popen(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={
                **os.environ, **common, "RANK": str(rank), "PET_NODE_RANK": str(rank)}))
        texts = [process.communicate(timeout=120)[0] for process in processes]
        self.assertEqual([process.returncode for process in processes], [0, 0], texts)
        self.check("manifest")

    def test_orders_of_the_mesh(self):
        # which ranks are neighbours changes no loss: the sums have the same members
        losses = []
        for index, order in enumerate((["tensor", "context", "data", "pipeline"], ["pipeline", "data", "context", "tensor"])):
            layout = settings(parallel__tensor=2, parallel__order=order)
            status, text = train(self.scratch.run_file(f"order_{index}"), "--nproc", "4", *layout)
            self.assertEqual(status, 0, text)
            losses.append(self.scratch.losses(f"order_{index}"))
        self.assertEqual(*losses)
        status, text = train(self.scratch.run_file("order_bad"), "--nproc", "2", *settings(parallel__order=["tensor", "tensor"]))
        self.assertEqual(status, 2, text)
        self.assertIn("parallel.order must name tensor, context, data and pipeline once each", text)

    def test_a_mesh_that_cannot_be_ends_every_rank_with_2(self):
        common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        file = self.scratch.run_file("mesh")
        ranks = [subprocess.Popen([COMMAND, "train", file, *settings(parallel__tensor=3)], text=True, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
                 for rank in range(2)]
        texts = [rank.communicate(timeout=120)[0] for rank in ranks]
        self.assertEqual([rank.returncode for rank in ranks], [2, 2], texts)
        for text in texts:
            self.assertIn("world size 2 is not divisible by tensor*context*pipeline = 3*1*1 = 3", text)

    def test_flags_that_do_not_fit_start_nothing(self):
        rows = {
            ("--nnodes", "2"): "several hosts need the address of host 0",
            ("--nnodes", "2", "--node-rank", "2", "--master", "a:1"): "--node-rank 2 must be below --nnodes 2",
            ("--nnodes", "2", "--master", "host0"): "--master 'host0' is not HOST:PORT",
            ("--nnodes", "2", "--master", "fd00::1"): "--master 'fd00::1' is not HOST:PORT",  # its last part is no port
            ("--nproc", "2", "--master", "a:1"): "one host needs none",
            ("--nnodes", "3", "--master", "a:1", *settings(parallel__tensor=2)):
                "world size 3 is not divisible by tensor*context*pipeline = 2*1*1 = 2",
        }
        for words, message in rows.items():
            status, text = train(self.scratch.run_file("never"), *words)
            self.assertEqual(status, 2, text)
            self.assertIn(message, text)
            self.assertFalse((self.scratch.folder / "never").exists())


if __name__ == "__main__":
    unittest.main()
