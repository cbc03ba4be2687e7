"""`python -m genbench_jax.export`, the same as `genbench export`."""

import runpy

# By name: rooms know nothing of the commands above them.
runpy.run_module("genbench_jax.cli.export", run_name="__main__")
