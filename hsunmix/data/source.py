"""Where the pixels of a cube come from: a file that is read window by window, or an array."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

__all__ = ["FunctionSource", "PixelSource", "largest_number", "read_window"]


@runtime_checkable
class PixelSource(Protocol):
    """A cube (H, W, B) whose pixels are read when they are needed.

    Attributes:
        shape: rows, columns, bands.
        saturation: the reflectance of the largest number that the file's type holds; infinite for floats.
    """

    shape: tuple[int, int, int]
    saturation: float

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Reflectance of a window.

        Args:
            rows: of the cube.
            columns: of the cube.

        Returns:
            (h, w, B) float32 reflectance; NaN where there are no data.
        """


class FunctionSource:
    """A source made of a shape and a function that reads one window.

    Args:
        path: file, for messages.
        shape: rows, columns, bands.
        function: takes two slices with known ends, returns (h, w, B) float32 reflectance with NaN for missing values.
        saturation: the reflectance of the largest number that the file's type holds.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        shape: tuple[int, int, int],
        function: Callable[[slice, slice], np.ndarray],
        saturation: float = np.inf,
    ) -> None:
        self.path = Path(path)
        self.shape = shape
        self.saturation = float(saturation)
        self._function = function

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Reflectance of a window.

        Args:
            rows: of the cube.
            columns: of the cube.

        Returns:
            (h, w, B) float32 reflectance; NaN where there are no data.

        Raises:
            OSError: the window can't be read; the message names file and window.
        """
        rows, columns = (slice(*part.indices(size)) for part, size in zip((rows, columns), self.shape))
        where = f"{self.path}: rows {rows.start + 1}-{rows.stop}, columns {columns.start + 1}-{columns.stop}"
        try:
            data = self._function(rows, columns)
        except Exception as error:  # each library has its own for a damaged block
            raise OSError(f"{where} can't be read ({error}); the file may be damaged or truncated") from error
        expected = (rows.stop - rows.start, columns.stop - columns.start, self.shape[2])
        if data.shape != expected:
            raise OSError(f"{where}: got {data.shape} instead of {expected}; the file may be truncated")
        return data


def largest_number(dtype: np.dtype) -> float:
    """The largest number of an integer type; infinite for floats, which don't saturate."""
    return float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else np.inf


def read_window(source: PixelSource | np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    """A window of a source or an array."""
    return source[rows, columns] if isinstance(source, np.ndarray) else source.read(rows, columns)
