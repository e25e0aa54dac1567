"""Small training runs for the tests in Python: a run file, starting the command, what came out."""
import json
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

COMMAND = os.environ.get("TRIPTYCH_COMMAND", "build/release/src/cli/triptych")
MADE = Path(os.environ.get("TRIPTYCH_RUNS_DATA", "build/release/runs")).absolute()  # of quickstart_data

RUN_FILE = """output = "{output}"
seed = 5
threads = 1
[model]
path = "{model}"
weights = "random"
precision = "fp32"
[[data.train]]
path = "{data}"
[data]
max_length = 256
[train]
steps = 6
global_batch = 4
micro_batch = 1
validate_every = 0
[optimizer]
lr = 1e-3
[schedule]
name = "constant"
[checkpoint]
every = 2
[log]
every = 1
"""

# Variables that place a process; a test starts from none of them.
LAUNCH_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "SLURM_PROCID",
                    "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PET_NNODES")
for variable in LAUNCH_VARIABLES:
    os.environ.pop(variable, None)
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "3000")


class Scratch:
    """A folder with a model whose heads 2 and 4 tensor ranks can share; gone at the end unless `keep`."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="triptych_runs_"))
        self.model = self.folder / "model"
        shutil.copytree(MADE / "model", self.model)
        config = json.loads((self.model / "config.json").read_text())
        config["vision_config"]["num_heads"] = 4
        (self.model / "config.json").write_text(json.dumps(config))

    def run_file(self, name, data=None):
        """A run called `name`, whose output folder is beside the file."""
        path = self.folder / f"{name}.toml"
        path.write_text(RUN_FILE.format(output=self.folder / name, model=self.model,
                                        data=data or MADE / "data/train.jsonl"))
        return path

    def metrics(self, name):
        lines = (self.folder / name / "metrics.jsonl").read_text().splitlines()
        return [row for row in map(json.loads, lines) if "loss" in row]

    def losses(self, name):
        return [row["loss"] for row in self.metrics(name)]

    def weights(self, name):
        return (self.folder / name / "final/model.safetensors").read_bytes()

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def settings(**values):
    """`--set` words: settings(parallel__tensor=2) is ["--set", "parallel.tensor=2"]."""
    words = []
    for key, value in values.items():
        words += ["--set", f"{key.replace('__', '.')}={json.dumps(value) if isinstance(value, (list, bool)) else value}"]
    return words


def train(file, *words, environment=None):
    """The command, to its end. @return (status, what it wrote)"""
    done = subprocess.run([COMMAND, "train", str(file), *words], env={**os.environ, **(environment or {})},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    return done.returncode, done.stdout
