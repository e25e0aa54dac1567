"""Training on two hosts of two ranks each, in network namespaces: equal to one host, and safe when a host or a cable fails."""
import os
import re
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True
from hosts import Hosts, NotPermitted, SKIPPED  # noqa: E402
from runs import COMMAND, Scratch, settings, train  # noqa: E402

PORT = 29400
TORCHRUN = Path(sys.executable).parent / "torchrun"


class TwoHosts(unittest.TestCase):
    def setUp(self):
        self.hosts = Hosts(2)
        self.addCleanup(self.hosts.close)
        self.scratch = Scratch()
        self.addCleanup(self.scratch.close)

    def start(self, file, *words, launcher=None, master="host0"):
        """The run on both hosts, two ranks each, by our own launcher or by `launcher(host)`."""
        processes = []
        for host in range(2):
            own = ["--nnodes", "2", "--node-rank", host, "--nproc", "2", "--master", f"{master}:{PORT}"]
            command = [COMMAND, "train", file, *words, *([] if launcher else own)]
            output = open(self.scratch.folder / f"output{host}", "w")
            self.addCleanup(output.close)
            processes.append(self.hosts.start(host, (launcher(host) if launcher else []) + command, stdout=output,
                                              stderr=subprocess.STDOUT))
        return processes

    def output(self):
        return "".join(f"--- host{host}\n" + (self.scratch.folder / f"output{host}").read_text() for host in range(2))

    def wait(self, processes, statuses=(0, 0), limit_s=120):
        try:
            ended = tuple(process.wait(timeout=limit_s) for process in processes)
        except subprocess.TimeoutExpired:
            self.fail("still running:\n" + self.output())
        self.assertEqual(ended, statuses, self.output())

    def wait_for_step(self, name, step, processes):
        path = self.scratch.folder / name / "metrics.jsonl"
        for _ in range(2400):
            if path.exists() and f'"step":{step},' in path.read_text().replace(" ", ""):
                return
            if any(process.poll() is not None for process in processes):
                break
            time.sleep(0.05)
        self.fail(f"step {step} was not reached:\n" + self.output())

    def worker(self, launcher_pid, rank):
        """The process of global rank `rank` below a launcher of ours."""
        children = Path(f"/proc/{launcher_pid}/task/{launcher_pid}/children").read_text().split()
        for child in children:
            if f"\0RANK={rank}\0" in "\0" + Path(f"/proc/{child}/environ").read_text():
                return int(child)
        self.fail(f"rank {rank} is not a child of {launcher_pid}")

    def test_losses_are_those_of_one_host(self):
        layouts = {
            "data": {},
            "tensor_pipeline": {"parallel__tensor": 2, "parallel__pipeline": 2},
            "pipeline_inside": {"parallel__tensor": 2, "parallel__pipeline": 2,
                                "parallel__order": ["pipeline", "context", "data", "tensor"]},
            "ring": {"parallel__context": 4, "parallel__context_algorithm": "ring"},
        }
        for layout, values in layouts.items():
            with self.subTest(layout):
                status, text = train(self.scratch.run_file(f"{layout}_one"), "--nproc", "4", *settings(**values))
                self.assertEqual(status, 0, text)
                self.wait(self.start(self.scratch.run_file(f"{layout}_two"), *settings(**values)))
                self.assertEqual(self.scratch.losses(f"{layout}_one"), self.scratch.losses(f"{layout}_two"))
                self.assertEqual(self.scratch.weights(f"{layout}_one"), self.scratch.weights(f"{layout}_two"))
                # by the route to the other host, though each host's own name stands for 127.0.1.1
                self.assertIn("host0: collectives go over eth0 (10.77.0.1)", self.output())

    def test_addresses_of_ipv6(self):
        status, text = train(self.scratch.run_file("one"), "--nproc", "4")
        self.assertEqual(status, 0, text)
        self.wait(self.start(self.scratch.run_file("two"), master=f"[{self.hosts.address6(0)}]"))
        self.assertEqual(self.scratch.losses("one"), self.scratch.losses("two"))
        self.assertIn("host0: collectives go over eth0 (fd77::1)", self.output())

    def test_torchrun_starts_both(self):
        status, text = train(self.scratch.run_file("one"), "--nproc", "4")
        self.assertEqual(status, 0, text)

        def torchrun(host):
            return [TORCHRUN, "--no-python", "--nnodes=2", f"--node-rank={host}", "--nproc-per-node=2",
                    "--master-addr=host0", f"--master-port={PORT}"]
        self.wait(self.start(self.scratch.run_file("two"), launcher=torchrun))
        self.assertEqual(self.scratch.losses("one"), self.scratch.losses("two"))

    def test_another_run_file_on_one_host_is_named(self):
        files = [self.scratch.run_file("same"), self.scratch.run_file("same_too")]
        files[1].write_text(files[0].read_text().replace("lr = 1e-3", "lr = 2e-3"))
        processes = []
        for host in range(2):
            processes += [self.hosts.start(host, [COMMAND, "train", files[host], "--nnodes", "2", "--node-rank", host, "--nproc",
                                                  "2", "--master", f"host0:{PORT}"],
                                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)]
        texts = [process.communicate(timeout=60)[0] for process in processes]
        self.assertEqual([process.returncode for process in processes], [2, 2], texts)
        for text in texts:
            self.assertIn("configuration.optimizer.lr: 0.001 on ranks 0, 1; 0.002 on ranks 2, 3", text)

    def test_cut_cable_stops_all_and_names_the_other_host(self):
        file = self.scratch.run_file("cut")
        processes = self.start(file, *settings(train__steps=100000, launch__timeout_s=4, launch__warn_after_s=2,
                                            checkpoint__every=0))
        self.wait_for_step("cut", 3, processes)
        start = time.monotonic()
        self.hosts.cut(1)
        self.wait(processes, (1, 1), 60)
        self.assertLess(time.monotonic() - start, 40)
        host0, host1 = ((self.scratch.folder / f"output{host}").read_text() for host in range(2))
        # the side with the store names a rank of the other host, its step and the collective
        self.assertRegex(host0, r"rank [01] \(host0\), step \d+: .* of .* failed: .*")
        self.assertRegex(host0, r"rank [23] \(host1\) is gone, it was at step \d+, \w+")
        # the other side has lost the store
        self.assertRegex(host1, r"rank 0 \(host0:\d+\), which serves the store, (is gone|does not answer); here: step \d+, \w+ \w+ \w+")

    def test_killed_rank_restarts_both_hosts_from_the_checkpoint(self):
        steps = settings(train__steps=24, checkpoint__every=4)
        status, text = train(self.scratch.run_file("whole"), "--nproc", "4", *steps)
        self.assertEqual(status, 0, text)
        processes = self.start(self.scratch.run_file("killed"), *steps, *settings(launch__max_restarts=2))
        for victim in (3, 0):  # on host 1; then rank 0, with the store
            self.wait_for_step("killed", 6 if victim else 14, processes)
            os.kill(self.worker(processes[victim // 2].pid, victim), signal.SIGKILL)
        self.wait(processes)
        self.assertIn("rank 3 was killed by signal 9", self.output())
        self.assertIn("rank 0 was killed by signal 9", self.output())
        self.assertEqual(len(re.findall(r"restart 2 of 2", self.output())), 2, self.output())
        self.assertEqual(self.scratch.losses("whole"), self.scratch.losses("killed"))
        self.assertEqual(self.scratch.weights("whole"), self.scratch.weights("killed"))


if __name__ == "__main__":
    try:
        Hosts(1).close()
    except NotPermitted as reason:
        print(f"skipped: {reason}")
        sys.exit(SKIPPED)
    unittest.main()
