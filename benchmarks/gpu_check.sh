#!/usr/bin/env bash
# Compare generation with PyTorch on one GPU, in less than eight minutes, for the tables of docs/performance.md.
#
#   bash benchmarks/gpu_check.sh OUT     # requires JAX with CUDA, PyTorch, diffusers and this package's dependencies
#
# Each part has its own time limit, so that a slow one leaves time for the others. Results are JSON files in OUT.
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

# SD 2.1-base in bf16, batches of 8 and 1, DPM-Solver++ with guidance, versus torch.compile.
run 270 sd21 --model=sd21 --batches=8,1 --rounds=5 --steps=10 --loop-only --torch-compile=reduce-overhead --profile
# SDXL with reduced width, four steps without guidance, as for SDXL-Turbo.
run 120 sdxl-few-step --model=sdxl-reduced --few-step --batches=8 --rounds=5 --torch-compile=reduce-overhead
# Full-size SDXL base at 1024 x 1024, only ours: time for loading, compilation and a step.
run 90 sdxl --model=sdxl --batches=1 --rounds=2 --steps=4 --loop-only --sides=ours
