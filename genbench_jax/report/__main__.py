"""`python -m genbench_jax.report`: `genbench report`, and with `--compare RUN_A RUN_B`, `genbench compare`."""

import runpy
import sys

name = "compare" if "--compare" in sys.argv else "report"
sys.argv = [argument for argument in sys.argv if argument != "--compare"]
# By name, because this package must not import the command line above it.
runpy.run_module(f"genbench_jax.cli.{name}", run_name="__main__")
