#!/usr/bin/env bash
# Open MPI starts the ranks on the hosts of a host file; the collectives are not MPI's.   ./mpirun.sh RUN.toml HOSTFILE
# With Intel MPI or MPICH (Hydra): mpirun -f HOSTFILE -ppn 8 -n 16 -genv MASTER_ADDR ... -genv MASTER_PORT ... triptych ...
set -euo pipefail
run=${1:?usage: mpirun.sh RUN.toml HOSTFILE} hosts=${2:?usage: mpirun.sh RUN.toml HOSTFILE}
per_host=${RANKS_PER_HOST:-8}
count=$(grep -cve '^[[:space:]]*\(#\|$\)' "$hosts")
# Rank 0 runs on the first host of the file.
MASTER_ADDR=${MASTER_ADDR:-$(awk '!/^[[:space:]]*(#|$)/ {print $1; exit}' "$hosts")}
MASTER_PORT=${MASTER_PORT:-29500}
export MASTER_ADDR MASTER_PORT
exec mpirun -np "$((count * per_host))" --hostfile "$hosts" --map-by "ppr:$per_host:node" --bind-to none \
  -x MASTER_ADDR -x MASTER_PORT triptych train "$run"
