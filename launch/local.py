"""Run the benchmark as several processes on this machine, which communicate over the loopback interface.

  python launch/local.py --processes 4 -- --config configs/demo.py --workdir demo

On CPU, every process uses its share of the cores. On a machine with several GPUs, one process uses all of
them; `--gpus` gives each process one GPU through CUDA_VISIBLE_DEVICES.
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
  """Run all processes; return the first nonzero exit status, in the order in which they ended, or 0."""
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
    signal.signal(number, lambda got, frame: [process.send_signal(got) for process in processes])
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
  parser.add_argument("--processes", type=int, default=2, help="number of processes")
  parser.add_argument(
    "--devices", type=int, default=0, help="simulated CPU devices per process, for tests"
  )
  parser.add_argument("--gpus", action="store_true", help="one GPU per process")
  parser.add_argument("arguments", nargs="+", help="arguments of genbench_jax.main, after --")
  options = parser.parse_args(argv)
  if options.processes < 1:
    parser.error(f"--processes is {options.processes}, expected at least 1")
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
  """Print the lines of a process, prefixed with its number."""
  assert process.stdout is not None
  for line in process.stdout:
    sys.stderr.write(f"[{number}] {line}")
    sys.stderr.flush()
  ended.append(process.wait())


if __name__ == "__main__":
  sys.exit(main())
