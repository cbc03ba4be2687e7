"""All pairs of rows of two sharded sets: blocks of one set travel round the ring of devices."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Shaped

from genbench_jax.metrics.inputs import HIGHEST, place
from genbench_jax.runtime.mesh import DATA_AXIS

State = TypeVar("State")
Block = TypeVar("Block")
# A tile of products fits a CPU's cache and is large enough to fill a matrix unit.
ROW_TILE = 2048
COLUMN_TILE = 1024


class Rows(NamedTuple):
  """Rows of one set and their indices in it; -1 is padding."""

  features: Float[Array, "n d"]
  number: Int[Array, "n"]


def placed_rows(features: Float[np.ndarray, "n d"], cut: slice, mesh: Mesh) -> Rows:
  """Put a block of checked features on the mesh.

  Args:
    features: checked features.
    cut: rows of the block.
    mesh: devices.
  """
  # Padding is zero; numbering from 1 on the way in turns it into -1 below.
  number = np.arange(cut.start + 1, cut.stop + 1, dtype=np.int32)
  placed, number_plus_one, _ = place("features", mesh, features[cut], number)
  return Rows(placed, number_plus_one - 1)


def ring(
  visit: Callable[[State, Block], tuple[State, Block]], state: State, block: Block, devices: int
) -> tuple[State, Block]:
  """Let every device's block visit every device and return home (inside shard_map).

  Args:
    visit: maps the local state and the visiting block to the new state and block.
    state: stays on its device.
    block: travels; `visit` may change it.
    devices: number of devices in the ring.

  Returns:
    The final state, and this device's own block after its visits.
  """
  if devices == 1:
    return visit(state, block)
  following = [(device, (device + 1) % devices) for device in range(devices)]

  def step(_: Int[Array, ""], carry: tuple[State, Block]) -> tuple[State, Block]:
    state, block = visit(*carry)
    return state, jax.lax.ppermute(block, DATA_AXIS, following)

  return jax.lax.fori_loop(0, devices, step, (state, block))


def tiles(
  array: Shaped[Array | np.ndarray, "n ..."], rows: int, fill: float = 0
) -> Shaped[Array, "t r ..."]:
  """Split the rows into tiles [t, r, ...] of at most `rows`; `fill` completes the last tile.

  Args:
    array: rows.
    rows: rows of a tile.
    fill: value of rows that complete the last tile.
  """
  array = jnp.asarray(array)
  rows = min(rows, len(array))
  missing = -len(array) % rows
  padding = [(0, missing)] + [(0, 0)] * (array.ndim - 1)
  padded = jnp.pad(array, padding, constant_values=fill) if missing else array
  return padded.reshape(-1, rows, *array.shape[1:])


def row_tiles(rows: Rows, size: int) -> Rows:
  """Return the rows in tiles; fill rows get number -1."""
  return Rows(tiles(rows.features, size), tiles(rows.number, size, fill=-1))


def untiled(tiled: Shaped[Array, "t r ..."], rows: int) -> Shaped[Array, "n ..."]:
  """Join the tiles and return the first `rows` rows."""
  return tiled.reshape(-1, *tiled.shape[2:])[:rows]


def products(rows: Float[Array, "t d"], columns: Float[Array, "m d"]) -> Float[Array, "t m"]:
  """Return the inner products of the rows of two tiles."""
  return jnp.matmul(rows, columns.T, precision=HIGHEST)
