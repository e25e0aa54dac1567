#!/usr/bin/env bash
# On each of NODES hosts, with its own number:   NODE_RANK=0 ./torchrun.sh RUN.toml
# torchrun starts all ranks again after a failure, up to MAX_RESTARTS times; each start goes on from the newest
# checkpoint. `launch.max_restarts` of the run file is for our own launcher (own_launcher.sh).
set -euo pipefail
run=${1:?usage: NODE_RANK=0 torchrun.sh RUN.toml}
exec torchrun --no-python \
  --nnodes "${NODES:-2}" --node-rank "${NODE_RANK:?number of this host, from 0}" \
  --nproc-per-node "${RANKS_PER_HOST:-8}" \
  --master-addr "${MASTER_ADDR:-host0}" --master-port "${MASTER_PORT:-29500}" \
  --max-restarts "${MAX_RESTARTS:-3}" \
  triptych train "$run"
