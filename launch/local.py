"""Runs the benchmark as several processes on this machine, which find each other on the loopback.

python launch/local.py --processes 4 -- --config configs/demo.py --workdir demo

On CPU every process takes its share of the cores. On a machine with several GPUs one process uses all of them: give
each process its own devices by CUDA_VISIBLE_DEVICES only where you want that (see `--gpus`).
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
  """Runs all processes; returns the first exit status that is not 0, in the order in which they ended."""
  options = _parse(argv)
  address = f"127.0.0.1:{_free_port()}"
  processes = [
    subprocess.Popen(
      _command(options.arguments, address, options.processes, number),
      env=_environment(number, options),
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      errors="replace",
    )
    for number in range(options.processes)
  ]
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda got, frame: [one.send_signal(got) for one in processes])
  ended: list[int] = []
  readers = [
    threading.Thread(target=_follow, args=(number, process, ended))
    for number, process in enumerate(processes)
  ]
  for reader in readers:
    reader.start()
  for reader in readers:
    reader.join()
  return next((status for status in ended if status), 0)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--processes", type=int, default=2, help="how many")
  parser.add_argument("--devices", type=int, default=0, help="fake CPU devices of each, for tests")
  parser.add_argument("--gpus", action="store_true", help="one GPU for each process")
  parser.add_argument("arguments", nargs="+", help="of genbench_jax.main, after --")
  options = parser.parse_args(argv)
  if options.processes < 1:
    parser.error(f"--processes is {options.processes}, wanted at least 1")
  return options


def _command(arguments: Sequence[str], address: str, processes: int, number: int) -> list[str]:
  return [
    *(sys.executable, "-m", "genbench_jax.main", *arguments),
    *(f"--coordinator={address}", f"--num_processes={processes}", f"--process_id={number}"),
  ]


def _environment(number: int, options: argparse.Namespace) -> dict[str, str]:
  environment = dict(os.environ)
  if options.gpus:
    environment["CUDA_VISIBLE_DEVICES"] = str(number)
  else:
    environment.setdefault("JAX_PLATFORMS", "cpu")
  if options.devices:
    count = f"--xla_force_host_platform_device_count={options.devices}"
    environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {count}".strip()
  return environment


def _free_port() -> int:
  with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    return found.getsockname()[1]


def _follow(number: int, process: subprocess.Popen[str], ended: list[int]) -> None:
  """Passes the lines of a process on, with its number before them."""
  assert process.stdout is not None
  for line in process.stdout:
    sys.stderr.write(f"[{number}] {line}")
    sys.stderr.flush()
  ended.append(process.wait())


if __name__ == "__main__":
  sys.exit(main())
