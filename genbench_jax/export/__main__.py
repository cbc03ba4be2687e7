"""`python -m genbench_jax.export`, the same as `genbench export`."""

from genbench_jax.cli.export import main
from genbench_jax.runtime.stopping import leave

if __name__ == "__main__":
  leave(main())
