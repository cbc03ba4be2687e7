#!/usr/bin/env bash
# A run on the GPUs of one machine, or of several without a scheduler.
#
# One machine, all its GPUs in one process:
#   launch/multi_gpu.sh --config configs/full.py --workdir /data/full
#
# Several: the same on each, with the address of the first, how many there are, and which this is:
#   COORDINATOR=10.0.0.1:12355 HOSTS=4 HOST=0 launch/multi_gpu.sh --config configs/full.py --workdir /shared/full
set -euo pipefail

# XLA takes three quarters of a GPU's memory at once; large batches of 512 x 512 images need more.
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}

hosts=()
if [[ -n ${COORDINATOR:-} ]]; then
  hosts=("--coordinator=$COORDINATOR" "--num_processes=${HOSTS:?HOSTS: how many machines}"
    "--process_id=${HOST:?HOST: which of them this is, from 0}")
fi
exec "${PYTHON:-python}" -m genbench_jax.main "$@" "${hosts[@]}"
