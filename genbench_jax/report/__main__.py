"""`python -m genbench_jax.report`, the same as `genbench report`."""

import runpy

# By name, because this package must not import the command line above it.
runpy.run_module("genbench_jax.cli.report", run_name="__main__")
