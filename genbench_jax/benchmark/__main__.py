"""`genbench benchmark`, the same as `genbench benchmark`."""

import runpy

# By name: rooms know nothing of the commands above them.
runpy.run_module("genbench_jax.cli.benchmark", run_name="__main__")
