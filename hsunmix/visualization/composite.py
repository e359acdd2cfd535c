"""A colour picture of a cube: true colour where it sees red, green and blue, false colour elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .style import INK, bare_axes, new_figure, panel_size

if TYPE_CHECKING:
    from ..data import Cube

__all__ = ["color_composite", "plot_composite", "plot_preview", "scene_preview", "stretched"]

_TRUE_COLOR = (640.0, 550.0, 460.0)  # nm
_GREY = 0.77


def color_composite(
    cube: np.ndarray,
    wavelengths: np.ndarray | None = None,
    band_mask: np.ndarray | None = None,
    percentiles: tuple[float, float] = (2.0, 98.0),
    gamma: float = 0.8,
) -> np.ndarray:
    """Red, green, blue from three bands, each stretched between two percentiles.

    Args:
        cube: (H, W, B) in any unit; pixels with NaN become grey.
        wavelengths: (B,) in nm, or None: three bands spread over the range.
        band_mask: (B,) bool, True = good band, or None.
        percentiles: become 0 and 1.
        gamma: exponent after the stretch; below 1 it lifts shadows.

    Returns:
        (H, W, 3) float32 in [0, 1].

    Raises:
        ValueError: `cube` isn't (H, W, B), or no band is good.
    """
    cube = np.asarray(cube)
    if cube.ndim != 3:
        raise ValueError(f"`cube` must have the shape (H, W, B), got {cube.shape}")
    bands, _ = _choose_bands(cube.shape[2], wavelengths, band_mask)
    return stretched(cube[:, :, bands], percentiles, gamma)


def stretched(image: np.ndarray, percentiles: tuple[float, float] = (2.0, 98.0), gamma: float = 0.8) -> np.ndarray:
    """Three bands (H, W, 3) in any unit as colours in [0, 1]; pixels with NaN become grey."""
    image = image.astype(np.float32)
    missing = ~np.isfinite(image).all(axis=2)
    if missing.all():
        return np.full(image.shape, _GREY, np.float32)
    low, high = np.percentile(image[~missing], percentiles, axis=0)
    image = np.clip((image - low) / np.maximum(high - low, 1e-12), 0, 1).astype(np.float32) ** np.float32(gamma)
    image[missing] = _GREY
    return image


def _choose_bands(
    num_bands: int, wavelengths: np.ndarray | None, band_mask: np.ndarray | None
) -> tuple[list[int], bool]:
    """Three band indices, and whether they are true colour."""
    good = np.arange(num_bands) if band_mask is None else np.flatnonzero(band_mask)
    if len(good) == 0:
        raise ValueError("`band_mask` leaves no band")
    if wavelengths is not None:
        centers = np.asarray(wavelengths, dtype=np.float64)[good]
        nearest = [int(np.abs(centers - target).argmin()) for target in _TRUE_COLOR]
        if all(abs(centers[index] - target) < 40 for index, target in zip(nearest, _TRUE_COLOR)):
            return [int(good[index]) for index in nearest], True
        good = good[np.argsort(centers)]
    return [int(good[int(share * (len(good) - 1))]) for share in (0.85, 0.5, 0.15)], False


def plot_composite(
    cube: np.ndarray, wavelengths: np.ndarray | None = None, band_mask: np.ndarray | None = None, title: str = ""
) -> Any:
    """`color_composite` as a figure that says which bands it shows.

    Args:
        cube: (H, W, B).
        wavelengths: (B,) in nm, or None.
        band_mask: (B,) bool, True = good band, or None.
        title: put above the picture.

    Returns:
        `matplotlib.figure.Figure`.
    """
    bands, natural = _choose_bands(cube.shape[2], wavelengths, band_mask)
    shown = _band_labels(bands, natural, wavelengths)
    return plot_preview(color_composite(cube, wavelengths, band_mask), shown, title)


def _band_labels(bands: list[int], natural: bool, wavelengths: np.ndarray | None) -> str:
    shown = [f"band {band + 1}" if wavelengths is None else f"{wavelengths[band]:.0f} nm" for band in bands]
    return f"{'true' if natural else 'false'} colour: {', '.join(shown)}"


def scene_preview(cube: Cube, step: int = 1) -> tuple[np.ndarray, str]:
    """A colour picture of a scene that may still be in its file; reads a block of rows at a time.

    Args:
        cube: the scene.
        step: every so many rows and columns.

    Returns:
        (h, w, 3) colours in [0, 1], and which bands they show.
    """
    bands, natural = _choose_bands(cube.num_bands, cube.wavelengths, cube.band_mask)
    parts = []
    block = step * max(1, 64 // step)
    for first in range(0, cube.shape[0], block):
        window = cube.window(slice(first, first + block), slice(None))
        part = window.data[::step, ::step, bands]
        parts.append(np.where(window.nodata_mask[::step, ::step, None], np.float32(np.nan), part))
    return stretched(np.concatenate(parts)), _band_labels(bands, natural, cube.wavelengths)


def plot_preview(image: np.ndarray, bands: str, title: str = "") -> Any:
    """A colour picture as a figure that says which bands it shows.

    Args:
        image: (H, W, 3) colours in [0, 1].
        bands: put below the picture.
        title: put above the picture.

    Returns:
        `matplotlib.figure.Figure`.
    """
    panel = panel_size(image.shape[0], image.shape[1], longest=4.2)
    figure = new_figure(panel[0] + 0.2, panel[1] + 0.7)
    axes = figure.subplots()
    axes.imshow(image, interpolation="nearest")
    bare_axes(axes)
    axes.set_title(title or bands.split(":")[0].capitalize(), fontsize=11, color=INK)
    axes.set_xlabel(bands[0].upper() + bands[1:] if title else bands.split(": ")[-1], fontsize=8, color=INK)
    return figure
