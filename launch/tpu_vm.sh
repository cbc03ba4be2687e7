#!/usr/bin/env bash
# A run on a Cloud TPU slice with any number of hosts, with gcloud.
#
#   launch/tpu_vm.sh create                      creates the slice
#   launch/tpu_vm.sh install                     installs this checkout and its locked dependencies on all hosts
#   launch/tpu_vm.sh run --config configs/full.py --workdir /shared/full
#   launch/tpu_vm.sh resume --config ...         after preemption: recreates the slice if necessary, then runs;
#                                                the run continues from the work folder
#   launch/tpu_vm.sh delete                      deletes the slice, which ends its costs
#
# All hosts must see the work folder: a mounted Filestore, or gs://BUCKET/FOLDER.
# Settings are environment variables, with these defaults:
set -euo pipefail

NAME=${NAME:-genbench}
ZONE=${ZONE:-us-west4-a}
TYPE=${TYPE:-v5litepod-16}
VERSION=${VERSION:-v2-alpha-tpuv5-lite}
SPOT=${SPOT:-yes}
# How often `resume` tries again after a preemption.
TRIES=${TRIES:-100}
PREEMPTED=143

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tpu=(gcloud compute tpus tpu-vm)
where=("$NAME" "--zone=$ZONE")

create() {
  local options=("--accelerator-type=$TYPE" "--version=$VERSION")
  if [[ $SPOT == yes ]]; then options+=(--spot); fi
  "${tpu[@]}" create "${where[@]}" "${options[@]}"
}

install() {
  local archive
  archive=$(mktemp --suffix=.tar.gz)
  git -C "$repository" archive --format=tar.gz --output="$archive" HEAD
  "${tpu[@]}" scp "$archive" "$NAME:genbench_jax.tar.gz" "--zone=$ZONE" --worker=all
  rm -f "$archive"
  # The images have an older Python than 3.11, so uv installs its own.
  on_all "rm -rf genbench && mkdir genbench && tar -xzf genbench_jax.tar.gz -C genbench && cd genbench \
&& python3 -m pip install --quiet --user uv \
&& ~/.local/bin/uv venv --quiet --python 3.11 .venv \
&& ~/.local/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements.lock \
&& ~/.local/bin/uv pip install --quiet --python .venv/bin/python --no-deps . \
&& ~/.local/bin/uv pip install --quiet --python .venv/bin/python 'jax[tpu]' gcsfs==2026.2.0"
}

on_all() {
  "${tpu[@]}" ssh "${where[@]}" --worker=all "--command=$1"
}

run() {
  local words
  printf -v words ' %q' "$@"
  on_all "cd genbench && .venv/bin/python -m genbench_jax.main$words"
}

state() {
  "${tpu[@]}" describe "${where[@]}" '--format=value(state)' 2>/dev/null || echo GONE
}

resume() {
  local try status
  for ((try = 1; try <= TRIES; try++)); do
    if [[ $(state) != READY ]]; then
      delete || true
      if ! { create && install; }; then
        sleep "${PAUSE:-60}"
        continue
      fi
    fi
    status=0
    run "$@" || status=$?
    # 1 and 2 are errors of the run itself. A retry would repeat them, unless a host is missing.
    if [[ $status != "$PREEMPTED" && $(state) == READY ]]; then return "$status"; fi
    echo "preempted; try $((try + 1)) of $TRIES follows" >&2
    sleep "${PAUSE:-60}"
  done
  return 1
}

delete() {
  "${tpu[@]}" delete "${where[@]}" --quiet
}

case ${1:-} in
  create | install | delete) "$1" ;;
  run | resume) "$@" ;;
  *)
    echo "usage: $0 create | install | run ARGUMENTS | resume ARGUMENTS | delete" >&2
    exit 2
    ;;
esac
