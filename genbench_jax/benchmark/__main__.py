"""`python -m genbench_jax.benchmark`, the same as `genbench benchmark`."""

import runpy

# By name, because this package must not import the command line above it.
runpy.run_module("genbench_jax.cli.benchmark", run_name="__main__")
