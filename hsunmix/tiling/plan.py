"""A scene as overlapping tiles, and the smooth weights with which their results are blended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Tile", "TilePlan", "plan_tiles"]


@dataclass(frozen=True)
class Tile:
    """A window of a scene.

    Attributes:
        index: its place in the plan, counted from 0.
        rows: first row and the row after the last one.
        columns: likewise.
    """

    index: int
    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    def __str__(self) -> str:
        rows, columns = self.rows, self.columns
        return f"tile {self.index} (rows {rows[0] + 1}-{rows[1]}, columns {columns[0] + 1}-{columns[1]})"


@dataclass(frozen=True)
class TilePlan:
    """All tiles of a scene.

    Attributes:
        height: rows of the scene.
        width: columns of the scene.
        size: rows and columns of a tile (less where the scene is smaller).
        overlap: pixels that neighbours share, at least.
        tiles: row by row.
    """

    height: int
    width: int
    size: int
    overlap: int
    tiles: tuple[Tile, ...]

    def weights(self, tile: Tile) -> np.ndarray:
        """How much each pixel of a tile counts in the result.

        Outermost pixels, which the networks see without their surroundings, count nothing; then the weight rises as a
        squared sine. Where two neighbours overlap as planned their weights add up to one.

        Args:
            tile: of this plan.

        Returns:
            (h, w) float32 in [0, 1]; positive in every pixel that no other tile covers.
        """
        rows = self._ramp(tile.rows, self.height)
        columns = self._ramp(tile.columns, self.width)
        return (rows[:, None] * columns[None, :]).astype(np.float32)

    def _ramp(self, part: tuple[int, int], length: int) -> np.ndarray:
        margin = self.overlap // 4
        steps = self.overlap - 2 * margin
        position = (np.arange(part[1] - part[0]) - margin + 0.5) / max(steps, 1)
        rise = np.sin(0.5 * np.pi * position.clip(0, 1)) ** 2
        weight = np.ones(part[1] - part[0])
        if part[0] > 0:
            weight = weight * rise
        if part[1] < length:
            weight = weight * rise[::-1]
        return weight

    def covering(self, first: int, last: int) -> list[Tile]:
        """Tiles that hold one of some rows.

        Args:
            first: first row, counted from 0.
            last: the row after the last one.

        Returns:
            The tiles, in the order of the plan.
        """
        return [tile for tile in self.tiles if tile.rows[0] < last and tile.rows[1] > first]


def plan_tiles(height: int, width: int, size: int = 128, overlap: int = 32) -> TilePlan:
    """Cover a scene with tiles of equal size; the last ones are moved inwards, not cut.

    Args:
        height: rows of the scene.
        width: columns of the scene.
        size: rows and columns of a tile.
        overlap: pixels that neighbours share.

    Returns:
        The plan.

    Raises:
        ValueError: a size that is not positive, or an overlap of more than half a tile.
    """
    if min(height, width, size) < 1:
        raise ValueError(f"`height`, `width` and `size` must be positive, but are {height}, {width} and {size}")
    if not 0 <= overlap <= size // 2:
        raise ValueError(f"`overlap` must be between 0 and half of `size` ({size // 2}), but is {overlap}")
    spans = [(rows, columns) for rows in _spans(height, size, overlap) for columns in _spans(width, size, overlap)]
    tiles = tuple(Tile(index, rows, columns) for index, (rows, columns) in enumerate(spans))
    return TilePlan(height, width, size, overlap, tiles)


def _spans(length: int, size: int, overlap: int) -> list[tuple[int, int]]:
    if length <= size:
        return [(0, length)]
    starts = [*range(0, length - size, size - overlap), length - size]
    return [(start, start + size) for start in starts]
