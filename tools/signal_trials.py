"""Send SIGTERM or SIGINT to the demo at random moments and measure how it ends.

  python tools/signal_trials.py --trials 40 --out signal_trials.json

A signal is obeyed if the process ends within 25 s with the status of the signal (143 or 130, or death by the
signal itself while Python is still importing), one line and no traceback. Half of the signals are SIGINT. Trials
are appended to --out; a stopped tool continues there. The exit status is 1 if any signal was not obeyed.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MOST_SECONDS = 25.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main(argv: Sequence[str] | None = None) -> int:
  """Run all trials; return 0 if all signals were obeyed."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--trials", type=int, default=40)
  parser.add_argument("--earliest", type=float, default=2.0, help="seconds after the start")
  parser.add_argument("--latest", type=float, default=20.0, help="seconds after the start")
  parser.add_argument("--out", type=Path, default=Path("signal_trials.json"))
  options = parser.parse_args(argv)
  done = json.loads(options.out.read_text()) if options.out.exists() else []
  for number in range(len(done), options.trials):
    moment = random.Random(number).uniform(options.earliest, options.latest)
    done.append(trial(SIGNALS[number % 2], moment))
    options.out.write_text(json.dumps(done, indent=1))
    print(f"{number}: {done[-1]}", flush=True)
  print(summary(done))
  return 0 if all(found["obeyed"] for found in done) else 1


def trial(number: signal.Signals, moment: float) -> dict[str, Any]:
  """Start the demo, send the signal, and return how it ended."""
  with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as output:
    command = [sys.executable, "-m", "genbench_jax.main", "--config=configs/demo.py:quick"]
    process = subprocess.Popen(
      [*command, f"--workdir={folder}/run"],
      cwd=ROOT,
      env={**os.environ, "PYTHONPATH": str(ROOT)},
      stdout=output,
      stderr=output,
      # A shell in the background makes its children ignore Ctrl-C.
      preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    time.sleep(moment)
    ended_early = process.poll() is not None
    process.send_signal(number)
    began = time.monotonic()
    try:
      status: int | None = process.wait(2 * MOST_SECONDS)
    except subprocess.TimeoutExpired:
      status = None
      process.kill()
      process.wait()
    seconds = time.monotonic() - began
    output.seek(0)
    said = output.read()
  obeyed = (
    status in (128 + number, -number)
    and seconds <= MOST_SECONDS
    and (status < 0 or f"Status {128 + number}." in said)
    and not any(word in said for word in ("Traceback", "Exception ignored"))
  )
  return {
    "signal": number.name,
    "moment": round(moment, 1),
    "status": status,
    "seconds": round(seconds, 1),
    "load": round(os.getloadavg()[0], 1),
    "obeyed": obeyed and not ended_early,
    "said": said.strip().split("\n")[-1][:200],
  }


def summary(done: Sequence[Mapping[str, Any]]) -> str:
  """Return the number of obeyed signals and the times until the end."""
  seconds, loads = ([found[key] for found in done] for key in ("seconds", "load"))
  imports = sum(found["status"] is not None and found["status"] < 0 for found in done)
  return (
    f"{sum(found['obeyed'] for found in done)} of {len(done)} signals obeyed, {imports} of them during imports; ended"
    f" after {min(seconds)} to {max(seconds)} s (median {statistics.median(seconds):.1f}) at loads of {min(loads)} to"
    f" {max(loads)}"
  )


if __name__ == "__main__":
  sys.exit(main())
