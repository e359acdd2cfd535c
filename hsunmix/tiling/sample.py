"""A small picture of a large scene: patches from all over it, side by side.

What is estimated from it (endmembers, noise, brightness) depends on the scene alone, not on how it is tiled later.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..data import Cube

__all__ = ["sample_scene"]

PATCH = 16  # rows and columns of a patch: large enough for its pixels to have neighbours
GUTTER = 1  # nodata between patches, so that no pixel takes one of another patch for its neighbour


def sample_scene(cube: Cube, max_pixels: int = 160 * 160) -> Cube:
    """Patches on a regular grid over the scene, laid out as one small cube.

    Args:
        cube: the scene; only the patches are read.
        max_pixels: pixels of all patches together, at most; a scene that is not larger is returned whole.

    Returns:
        A cube in memory with the bands of the scene, nodata between the patches. A band that is missing in all of its
        pixels is a bad band.

    Raises:
        ValueError: no patch holds a pixel with data.
        OSError: a patch can't be read.
    """
    height, width, bands = cube.shape
    if height * width <= max_pixels:
        whole = cube.window(slice(None), slice(None))
        return _checked(Cube(whole.data, **_about(cube)), cube)
    patch = (min(PATCH, height), min(PATCH, width))
    down, across = _grid((height, width), patch, max_pixels // (patch[0] * patch[1]))
    rows, columns = _starts(height, patch[0], down), _starts(width, patch[1], across)
    steps = (patch[0] + GUTTER, patch[1] + GUTTER)
    mosaic = np.full((down * steps[0] - GUTTER, across * steps[1] - GUTTER, bands), np.nan, np.float32)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            window = cube.window(slice(row, row + patch[0]), slice(column, column + patch[1]))
            top, left = i * steps[0], j * steps[1]
            mosaic[top : top + patch[0], left : left + patch[1]] = window.data
    return _checked(Cube(mosaic, **_about(cube)), cube)


def _about(cube: Cube) -> dict[str, Any]:
    return {key: getattr(cube, key) for key in ("wavelengths", "fwhm", "band_mask", "scale", "path", "name")}


def _checked(sample: Cube, cube: Cube) -> Cube:
    if sample.nodata_mask.all():
        raise ValueError(f"{cube.path or 'cube'}: no pixel with data in {cube.shape[0]} x {cube.shape[1]}: all nodata")
    sample.saturation = cube.saturation
    return sample


def _grid(scene: tuple[int, int], patch: tuple[int, int], count: int) -> tuple[int, int]:
    """Numbers of patches down and across, about as far from each other in both directions."""
    most = (scene[0] // patch[0], scene[1] // patch[1])
    down = min(max(round(math.sqrt(count * scene[0] / scene[1])), 1), most[0])
    across = min(max(count // down, 1), most[1])
    return min(max(count // across, 1), most[0]), across


def _starts(length: int, size: int, count: int) -> list[int]:
    """First pixels of `count` patches, each in the middle of its share of the length."""
    return [min(int((k + 0.5) * length / count - size / 2), length - size) for k in range(count)]
