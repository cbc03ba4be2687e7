#!/usr/bin/env bash
# Generation on one GPU beside PyTorch, in under eight minutes: the rows of docs/performance.md that a new network changes.
#
#   bash benchmarks/gpu_check.sh OUT     # needs JAX with CUDA, PyTorch, diffusers and this package's requirements
#
# Each part has its own limit, so that a slow one doesn't take the others' time. Results are JSON files in OUT.
set -uo pipefail
out=${1:?folder for the results}
mkdir -p "$out"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader || true
python3 -c 'import jax, torch, diffusers; print(jax.__version__, torch.__version__, diffusers.__version__)'

run() {  # run SECONDS NAME ARGUMENTS...
  local limit=$1 name=$2
  shift 2
  echo "== $name"
  timeout "$limit" python3 benchmarks/generation.py --json="$out/$name.json" "$@" 2>&1 | tail -n 60
}

# SD 2.1-base, bf16: batch 8 and 1, DPM-Solver++ with guidance, torch.compile beside it.
run 270 sd21 --model=sd21 --batches=8,1 --rounds=5 --steps=10 --loop-only --torch-compile=reduce-overhead --profile
# SDXL of reduced width with four steps and no guidance, as SDXL-Turbo takes them.
run 120 sdxl-few-step --model=sdxl-reduced --few-step --batches=8 --rounds=5 --torch-compile=reduce-overhead
# Full-size SDXL base at 1024 x 1024, ours alone: what it takes to load, compile and step.
run 90 sdxl --model=sdxl --batches=1 --rounds=2 --steps=4 --loop-only --sides=ours
