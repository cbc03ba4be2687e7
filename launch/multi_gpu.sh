#!/usr/bin/env bash
# A run on the GPUs of one machine, or of several machines without a scheduler.
#
# One machine, with all GPUs in one process:
#   launch/multi_gpu.sh --config configs/full.py --workdir /data/full
#
# Several machines: the same command on each, with the first machine's address, the number of machines, and
# the machine's index:
#   COORDINATOR=10.0.0.1:12355 HOSTS=4 HOST=0 launch/multi_gpu.sh --config configs/full.py --workdir /shared/full
set -euo pipefail

# XLA preallocates three quarters of a GPU's memory by default; large batches of 512 x 512 images need more.
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}

hosts=()
if [[ -n ${COORDINATOR:-} ]]; then
  hosts=("--coordinator=$COORDINATOR" "--num_processes=${HOSTS:?HOSTS: number of machines}"
    "--process_id=${HOST:?HOST: index of this machine, from 0}")
fi
exec "${PYTHON:-python}" -m genbench_jax.main "$@" "${hosts[@]}"
