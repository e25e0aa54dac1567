#!/usr/bin/env bash
# Without Python and without a cluster's scheduler, on each of NODES hosts:   NODE_RANK=0 ./own_launcher.sh RUN.toml
# After a failure anywhere every host starts its ranks again from the newest checkpoint, launch.max_restarts times.
set -euo pipefail
run=${1:?usage: NODE_RANK=0 own_launcher.sh RUN.toml}
exec triptych train "$run" --nproc "${RANKS_PER_HOST:-8}" \
  --nnodes "${NODES:-2}" --node-rank "${NODE_RANK:?number of this host, from 0}" \
  --master "${MASTER_ADDR:-host0}:${MASTER_PORT:-29500}"
