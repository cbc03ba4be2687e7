"""`python -m genbench_jax.benchmark`, the same as `genbench benchmark`."""

from genbench_jax.cli.benchmark import main
from genbench_jax.runtime.stopping import leave

if __name__ == "__main__":
  leave(main())
