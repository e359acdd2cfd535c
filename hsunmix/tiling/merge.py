"""From finished tiles to maps of the whole scene: weighted means where tiles overlap."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .plan import Tile, TilePlan
from .store import TileStore

__all__ = ["merge_tiles"]

_BLOCK_VALUES = 8_000_000  # of the rows that are blended at a time


def merge_tiles(plan: TilePlan, store: TileStore, num_channels: int, path: Path) -> np.ndarray:
    """Blend all tiles into one file, a block of rows at a time.

    The sum runs over the tiles in the order of the plan, whoever made them and when: the same tiles give the same
    bytes.

    Args:
        plan: the tiles.
        store: holds each of them, as `maps` (h, w, C); NaN = nodata.
        num_channels: C.
        path: `.npy` file to write.

    Returns:
        (H, W, C) float32, mapped from the file.

    Raises:
        OSError: a tile is missing, or the disk is full.
    """
    shape = (plan.height, plan.width, num_channels)
    block = max(1, min(plan.size - plan.overlap, _BLOCK_VALUES // (plan.width * num_channels)))
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with open(path, "wb") as file:  # written, not mapped: a full disk is an error that can be told, not a signal
        np.lib.format.write_array_header_1_0(file, header)
        for first in range(0, plan.height, block):
            rows = _blend_rows(plan, store, num_channels, first, min(first + block, plan.height))
            file.write(rows.astype("<f4").tobytes())
    return np.load(path, mmap_mode="r")


def _blend_rows(plan: TilePlan, store: TileStore, num_channels: int, first: int, last: int) -> np.ndarray:
    """(last - first, W, C) weighted mean of the tiles that hold these rows."""
    total = np.zeros((last - first, plan.width, num_channels))
    weight = np.zeros((last - first, plan.width, 1))
    for tile in plan.covering(first, last):
        top, bottom = max(first, tile.rows[0]), min(last, tile.rows[1])
        inner = slice(top - tile.rows[0], bottom - tile.rows[0])
        maps = _maps(store, tile, num_channels)[inner]
        share = plan.weights(tile)[inner, :, None] * np.isfinite(maps).all(axis=2, keepdims=True)
        outer = (slice(top - first, bottom - first), slice(*tile.columns))
        total[outer] += share * np.nan_to_num(maps)
        weight[outer] += share
    with np.errstate(invalid="ignore", divide="ignore"):
        return (total / weight).astype(np.float32)  # 0 / 0, where no tile has data, is NaN


def _maps(store: TileStore, tile: Tile, num_channels: int) -> np.ndarray:
    arrays = store.load(tile)
    if arrays is None:
        raise OSError(f"{store.path(tile)}: {tile} is missing or damaged; --resume makes it again")
    maps = arrays["maps"]
    return maps if maps.size else np.full((*tile.shape, num_channels), np.nan, np.float32)
