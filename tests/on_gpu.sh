#!/usr/bin/env bash
# Runs a GPU test's command, or says that there is no GPU and exits 77 (skipped).
#   on_gpu.sh COMMAND...         once, around mpirun
#   on_gpu.sh --rank COMMAND...  on each rank: ranks that share a GPU must look like hosts of their own to NCCL;
#                                where there is a GPU for each, they need not
set -euo pipefail
if [[ $1 == --rank ]]; then
  shift
  export NCCL_SOCKET_IFNAME=lo NCCL_NVLS_ENABLE=0
  if [[ ${OMPI_COMM_WORLD_LOCAL_SIZE:-1} -gt $(nvidia-smi --list-gpus | grep -c '^GPU') ]]; then
    export NCCL_HOSTID=rank${OMPI_COMM_WORLD_RANK:-0}
  fi
  exec "$@"
fi
if ! gpus=$(nvidia-smi --list-gpus 2>&1); then
  echo "no GPU: skipped (nvidia-smi: ${gpus:0:200})"
  exit 77
fi
exec "$@"
