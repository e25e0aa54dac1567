"""A rank that dies, hangs or throws stops all ranks in time and is named, under each technique; a run that restarts from
its checkpoint ends with the weights of one that was never disturbed; ranks whose batches differ in kind never wait for
each other in vain."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import unittest
from datetime import timedelta
from pathlib import Path

from torch.distributed import PrefixStore, TCPStore

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True
from runs import COMMAND, MADE, Scratch, free_port, settings, train  # noqa: E402

TECHNIQUES = {
    "tensor": {"parallel__tensor": 2},
    "sequence": {"parallel__tensor": 2, "parallel__sequence": True},
    "pipeline": {"parallel__pipeline": 2},
    "ring": {"parallel__context": 2, "parallel__context_algorithm": "ring"},
    "ulysses": {"parallel__context": 2},
    "data": {"parallel__zero": 1},
}
HOST = re.escape(socket.gethostname())
# Settings of a run that is to fail: it ends only by failing, and saves nothing.
ENDLESS = {"train__steps": 1000000, "checkpoint__every": 0, "launch__timeout_s": 3, "launch__warn_after_s": 2}


def worker(launcher, rank):
    """The process of a rank below our launcher."""
    for child in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split():
        if f"\0RANK={rank}\0" in "\0" + Path(f"/proc/{child}/environ").read_text():
            return int(child)
    raise AssertionError(f"no rank {rank}")


class WithRuns(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = Scratch()
        cls.addClassCleanup(cls.scratch.close)

    def start(self, name, *words):
        log = open(self.scratch.folder / f"{name}.out", "w")
        self.addCleanup(log.close)
        process = subprocess.Popen([COMMAND, "train", self.scratch.run_file(name), *words], stdout=log,
                                   stderr=subprocess.STDOUT)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)  # the kernel takes the workers along
        return process

    def output(self, name):
        return (self.scratch.folder / f"{name}.out").read_text()

    def wait_for_step(self, name, step, process):
        path = self.scratch.folder / name / "metrics.jsonl"
        for _ in range(2400):
            if path.exists() and any(row["step"] >= step for row in self.rows_so_far(path)):
                return
            self.assertIsNone(process.poll(), self.output(name))
            time.sleep(0.05)
        self.fail(f"step {step} was not reached:\n" + self.output(name))

    def wait_for_word(self, name, rank, step, process):
        """Until a rank has told the others that it has come to `step`; ranks tell once a second."""
        lines = Path(f"/proc/{worker(process, rank)}/environ").read_text().split("\0")
        variables = dict(line.split("=", 1) for line in lines if line)
        store = PrefixStore("triptych/run/0", TCPStore(variables["MASTER_ADDR"], int(variables["MASTER_PORT"]), is_master=False,
                                                       wait_for_workers=False, timeout=timedelta(seconds=60)))
        for _ in range(1200):
            said = json.loads(store.get(f"state/{rank}"))
            if said["step"] >= step and said["text"]:
                return
            self.assertIsNone(process.poll(), self.output(name))
            time.sleep(0.05)
        self.fail(f"rank {rank} never told of step {step}:\n" + self.output(name))

    @staticmethod
    def rows_so_far(path):
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                row = json.loads(line)
                if "loss" in row:
                    yield row


class Failures(WithRuns):
    def fail_one(self, way, harm, limit_s):
        """Each technique: rank 1 of 2 comes to harm after step 3. @return the outputs by technique"""
        outputs = {}
        for technique, layout in TECHNIQUES.items():
            name = f"{way}_{technique}"
            process = self.start(name, "--nproc", "2", *settings(**layout, **ENDLESS))
            self.wait_for_step(name, 3, process)
            self.wait_for_word(name, 1, 3, process)  # what is asserted is the victim's own word
            victim = worker(process, 1)
            start = time.monotonic()
            harm(victim)
            try:
                status = process.wait(timeout=limit_s)
            except subprocess.TimeoutExpired:
                self.fail(f"{name} still runs after {limit_s} s:\n{self.output(name)}")
            self.assertEqual(status, 1, self.output(name))
            self.assertFalse(Path(f"/proc/{victim}").exists(), name)
            outputs[technique] = self.output(name)
            print(f"{name}: all stopped within {time.monotonic() - start:.1f} s")
        return outputs

    # "rank 0 (host), step 5: all_reduce #7 of tensor {0,1} [52, 64] Float 'mlp' failed: ..."
    COLLECTIVE = rf"rank 0 \({HOST}\), step \d+: (all_|reduce_|receive|send|broadcast|barrier|connecting).* failed: .*"

    def test_a_rank_that_dies_is_named(self):
        # some 8 s on an idle machine: silence, then what the launcher waits for the others
        for technique, text in self.fail_one("dies", lambda pid: os.kill(pid, signal.SIGKILL), 60).items():
            with self.subTest(technique):
                self.assertIn("rank 1 was killed by signal 9", text)
                self.assertRegex(text, self.COLLECTIVE + rf"rank 1 \({HOST}\) is gone, it was at step \d+, \w+")

    def test_a_rank_that_hangs_is_named(self):
        for technique, text in self.fail_one("hangs", lambda pid: os.kill(pid, signal.SIGSTOP), 90).items():
            with self.subTest(technique):
                self.assertRegex(text, self.COLLECTIVE + rf"rank 1 \({HOST}\) is gone, it was at step \d+, \w+")
                self.assertRegex(text, rf"no progress for \d+ s: rank 0 waits in .*; rank 1 \({HOST}\) is at step \d+")

    def test_a_rank_that_throws_is_named(self):
        # Two launchers of one rank each; the second sees other bytes in some pictures, which only their decoder minds.
        pictures = self.scratch.folder / "pictures"
        shutil.copytree(MADE / "data/train", pictures / "train")
        lines = (MADE / "data/train.jsonl").read_text().splitlines()[:60]
        (pictures / "train.jsonl").write_text("\n".join(lines) + "\n")
        cut = "set -e; for n in 1 2 3 4 5; do file=$0/train/000${n}5.jpg; head -c $(($(stat -c %s $file) / 2)) $file >" \
              ' $0/cut$n; mount --bind $0/cut$n $file; done; exec "$@"'
        for technique, layout in TECHNIQUES.items():
            with self.subTest(technique):
                name = f"throws_{technique}"
                file = self.scratch.run_file(name, pictures / "train.jsonl")
                port = free_port()
                started = []
                for host, before in enumerate(([], ["unshare", "--mount", "sh", "-c", cut, pictures])):
                    words = [*before, COMMAND, "train", file, "--nnodes", "2", "--node-rank", host, "--master",
                             f"127.0.0.1:{port}", *settings(**layout, **ENDLESS)]
                    started.append(subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                                    text=True))
                texts = [process.communicate(timeout=120)[0] for process in started]
                self.assertEqual([process.returncode for process in started], [1, 1], "".join(texts))
                self.assertRegex(texts[1], r"error: .*train.jsonl.*000\d5.jpg.*")
                self.assertRegex(texts[0], rf"stopped: rank 1 \({HOST}\), step \d+, failed: .*000\d5.jpg.*; "
                                           r"here: step \d+, (waiting in|computing after) \w+")

    def test_rank_0_that_hangs_takes_the_store_along(self):
        process = self.start("rank_0", "--nproc", "3", *settings(**{**ENDLESS, "train__global_batch": 3}))
        self.wait_for_step("rank_0", 3, process)
        os.kill(worker(process, 0), signal.SIGSTOP)
        self.assertEqual(process.wait(timeout=90), 1, self.output("rank_0"))
        # the collective's time-out, or the store's silence, whichever is noticed first
        self.assertRegex(self.output("rank_0"),
                         r"\[rank 1\] error: rank 0 \(127.0.0.1:\d+\), which serves the store, does not answer; "
                         r"here: step \d+, \w+ \w+ \w+")


class Restarts(WithRuns):
    def test_a_killed_rank_changes_nothing_but_time(self):
        steps = settings(train__steps=24, checkpoint__every=4)
        for technique in ("tensor", "pipeline", "ring", "data"):
            with self.subTest(technique):
                layout = settings(**TECHNIQUES[technique])
                status, text = train(self.scratch.run_file(f"whole_{technique}"), "--nproc", "2", *layout, *steps)
                self.assertEqual(status, 0, text)
                name = f"killed_{technique}"
                process = self.start(name, "--nproc", "2", *layout, *steps, *settings(launch__max_restarts=2))
                for rank, step in ((1, 6), (0, 14)):
                    self.wait_for_step(name, step, process)
                    os.kill(worker(process, rank), signal.SIGKILL)
                self.assertEqual(process.wait(timeout=120), 0, self.output(name))
                self.assertIn("restart 2 of 2", self.output(name))
                self.assertEqual(self.scratch.losses(f"whole_{technique}"), self.scratch.losses(name))
                self.assertEqual(self.scratch.weights(f"whole_{technique}"), self.scratch.weights(name))

    def test_no_more_restarts_than_allowed(self):
        process = self.start("often", "--nproc", "2", *settings(train__steps=1000000, launch__max_restarts=1,
                                                                checkpoint__every=4))
        for step in (6, 12):
            self.wait_for_step("often", step, process)
            os.kill(worker(process, 1), signal.SIGKILL)
        self.assertEqual(process.wait(timeout=120), 1, self.output("often"))
        self.assertEqual(self.output("often").count("starting all 2 ranks again"), 1)


class DifferentBatches(WithRuns):
    """Rows of text alone on some ranks and in some micro-batches, pictures on others."""
    LAYOUTS = {
        **{name: (2, layout) for name, layout in TECHNIQUES.items()},
        "dsp": (2, {"parallel__context": 2, "parallel__vision_context": "dsp"}),
        "virtual": (2, {"parallel__pipeline": 2, "parallel__virtual": 2}),
        "zb_h1": (2, {"parallel__pipeline": 2, "parallel__schedule": "zb_h1"}),
        "data_4": (4, {}),
        "tensor_data": (4, {"parallel__tensor": 2, "parallel__sequence": True}),
        "pipeline_data": (4, {"parallel__pipeline": 2}),
        "hybrid": (4, {"parallel__context": 4, "parallel__context_algorithm": "hybrid", "parallel__ulysses_degree": 2}),
        "ring_pipeline": (4, {"parallel__context": 2, "parallel__context_algorithm": "ring", "parallel__pipeline": 2}),
    }

    def test_no_layout_waits_in_vain(self):
        # A row holds 256 tokens: a text of nearly so many fills one by itself. Three texts, then five pictures.
        lines = (MADE / "data/train.jsonl").read_text().splitlines()[:50]
        records = []
        for index, line in enumerate(lines):
            record = json.loads(line)
            record["image"] = str(MADE / "data" / record["image"])
            records.append(record)
            for number in range(3 if index % 5 == 0 else 0):
                text = " ".join(str(index * 7 + number + word) for word in range(24))
                records.append({"conversations": [{"from": "human", "value": "Say it again: " + text},
                                                  {"from": "gpt", "value": text}]})
        data = self.scratch.folder / "mixed.jsonl"
        data.write_text("\n".join(map(json.dumps, records)) + "\n")
        few = settings(train__steps=8, checkpoint__every=0, launch__timeout_s=60)
        status, text = train(self.scratch.run_file("one", data), *few)
        self.assertEqual(status, 0, text)
        one = self.scratch.losses("one")
        for name, (ranks, layout) in self.LAYOUTS.items():
            with self.subTest(name):
                status, text = train(self.scratch.run_file(name, data), "--nproc", str(ranks), *few, *settings(**layout))
                self.assertEqual(status, 0, text)
                for step, (want, loss) in enumerate(zip(one, self.scratch.losses(name), strict=True), 1):
                    # fp32 sums in another order, carried through the updates
                    self.assertAlmostEqual(want, loss, delta=1e-5, msg=f"step {step}")


if __name__ == "__main__":
    unittest.main()
