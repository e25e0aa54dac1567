"""Makes tests/insight/two_gloo_ranks: record_two_gloo_ranks.py FOLDER

Two Gloo ranks train a small model under torch.profiler on the CPU: all-reduces of the gradients, and one message
from rank 0 to rank 1 in every step.
"""
import os
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.profiler import ProfilerActivity, profile, schedule


def train(rank, folder, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.GELU(), torch.nn.Linear(64, 8))
    optimizer = torch.optim.AdamW(model.parameters())

    def save(profiler):
        profiler.export_chrome_trace(os.path.join(folder, f"rank-{rank}.pt.trace.json.gz"))

    with profile(activities=[ProfilerActivity.CPU], schedule=schedule(wait=0, warmup=1, active=3), record_shapes=True,
                 profile_memory=True, on_trace_ready=save) as profiler:
        for _ in range(4):
            x = torch.randn(16, 32)
            model(x).square().mean().backward()
            for parameter in model.parameters():
                dist.all_reduce(parameter.grad)
            optimizer.step()
            optimizer.zero_grad()
            if rank == 0:
                dist.send(x, 1)
            else:
                dist.recv(x, 0)
            profiler.step()
    dist.destroy_process_group()


if __name__ == "__main__":
    os.makedirs(sys.argv[1], exist_ok=True)
    mp.spawn(train, args=(sys.argv[1], 29731), nprocs=2)
