"""Traces of a pipeline over two hosts in network namespaces: a slow link is named, by its direction, and nothing where there is none."""
import json
import os
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True
from hosts import Hosts, NotPermitted, SKIPPED  # noqa: E402
from runs import COMMAND, Scratch, settings  # noqa: E402

PORT = 29400
# Rows of 1024 tokens, two a micro-batch, 256 numbers a token: activations and their gradients are messages of 2 MiB. Only a
# message that its receiver waits for tells how fast its link is: the first stage computes less than the second and waits for
# gradients. Whether the second waits for activations is a matter of milliseconds; of a message that it does not wait for, the
# time until it asks for it shows what the link carries at least.
LAYOUT = settings(parallel__pipeline=2, parallel__vision_layers=[2, 0], parallel__text_layers=[1, 4], data__max_length=1024,
                  train__micro_batch=2, train__global_batch=6, train__steps=7, checkpoint__every=0, profile__mode="static",
                  profile__windows=[[3, 8]], profile__ranks=[-1])


def is_of_this_machine(finding, summary):
    """A single step in which threads waited for their cores for at least half of what it took more than usual."""
    if finding["kind"] != "outlier_step":
        return False
    waited = sum(step.get("core_wait_ns", 0) for step in summary["steps"] if step["step"] == finding["step"])
    return waited >= 0.5 * (finding["evidence"]["total_ns"] - finding["evidence"]["usual_ns"])


class TracedHosts(unittest.TestCase):
    def setUp(self):
        self.hosts = Hosts(2)
        self.addCleanup(self.hosts.close)
        self.scratch = Scratch()
        self.addCleanup(self.scratch.close)
        config = json.loads((self.scratch.model / "config.json").read_text())
        config.update(hidden_size=256, num_attention_heads=8, num_key_value_heads=4, num_hidden_layers=5)
        config["vision_config"]["out_hidden_size"] = 256
        (self.scratch.model / "config.json").write_text(json.dumps(config))

    def trained(self, name):
        """What `profile summary` says of a run with one rank on each host."""
        file, processes = self.scratch.run_file(name), []
        cores = sorted(os.sched_getaffinity(0))
        for host in range(2):
            # A core each, where there are two, as different hosts have: neither rank takes the other's.
            place = ["taskset", "--cpu-list", cores[host]] if len(cores) > 1 else []
            command = [*place, COMMAND, "train", file, *LAYOUT, "--nnodes", "2", "--node-rank", host, "--nproc", "1", "--master", f"host0:{PORT}"]
            processes.append(self.hosts.start(host, command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        texts = [process.communicate(timeout=300)[0] for process in processes]
        self.assertEqual([process.returncode for process in processes], [0, 0], texts)
        done = subprocess.run([COMMAND, "profile", "summary", self.scratch.folder / name, "--json"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        summary = json.loads(done.stdout)
        summary["findings"] = [finding for finding in summary["findings"] if not is_of_this_machine(finding, summary)]
        return summary

    def test_a_slow_link_is_named_with_its_direction_and_nothing_else(self):
        self.hosts.limit(1, "80mbit")  # what host 1 sends; 10 MB/s
        summary = self.trained("slow")
        self.assertEqual([(f["kind"], f.get("src"), f.get("dst")) for f in summary["findings"]], [("slow_link", 1, 0)],
                         (summary["findings"], summary["communication"]["links"]))
        evidence = summary["findings"][0]["evidence"]
        # the limit of 10 MB/s, and what one burst and the sockets' buffers let through at once
        self.assertTrue(5e6 < evidence["bandwidth"] < 15e6, evidence)
        self.assertGreaterEqual(evidence["messages"], 5, "one a step at least")

    def test_the_clean_twin_names_nothing(self):
        summary = self.trained("clean")
        self.assertEqual(summary["findings"], [])
        links = {(link["src"], link["dst"]): link["large"] for link in summary["communication"]["links"]}
        self.assertGreaterEqual(links[1, 0], 5, ("messages that the rule speaks of", summary["communication"]["links"]))


if __name__ == "__main__":
    try:
        Hosts(1).close()
    except NotPermitted as reason:
        print(f"skipped: {reason}", file=sys.stderr)
        sys.exit(SKIPPED)
    unittest.main()
