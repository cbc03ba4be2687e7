"""`python -m genbench_jax.export`, the same as `genbench export`."""

import runpy

# By name, because this package must not import the command line above it.
runpy.run_module("genbench_jax.cli.export", run_name="__main__")
