"""The cube as the rest of the library sees it: (H, W, B) reflectance, wavelengths in nm, what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .wavelengths import to_nanometers

__all__ = ["Cube"]


@dataclass
class Cube:
    """A hyperspectral image and what its file says about it.

    Construction checks the array and completes the masks: bands and pixels without a finite value never count as
    measured. A band that is missing in every pixel is a bad band; a pixel that misses a good band is nodata.

    Args:
        data: (H, W, B) reflectance, converted to float32; missing values are NaN.
        wavelengths: (B,) band centres in nm (micrometres are converted), in file order, or None.
        fwhm: (B,) full widths at half maximum in nm, or None.
        band_mask: (B,) bool, True = good band; None = all good.
        nodata_mask: (H, W) bool, True = nodata; None = from `data`.
        scale: what the file's numbers were divided by.
        metadata: header of the file (ENVI: map info, coordinate system, ...).
        path: file that it was read from.
        name: short name for titles.

    Raises:
        ValueError: wrong number of dimensions, complex or non-numeric values, or counts that don't agree; also
            (B, H, W) data, where the wavelengths prove it.
    """

    data: np.ndarray
    wavelengths: np.ndarray | None = None
    fwhm: np.ndarray | None = None
    band_mask: Any = None  # None only before construction ends
    nodata_mask: Any = None
    scale: float = 1.0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    name: str = ""

    def __post_init__(self) -> None:
        self.data = _checked_data(self.data)
        if self.wavelengths is not None:
            self.wavelengths, self.fwhm = to_nanometers(self.wavelengths, None, self.fwhm)
            _check_band_axis(self.data.shape, len(self.wavelengths))
        if self.fwhm is not None:
            self.fwhm = np.asarray(self.fwhm, dtype=np.float64)
        num_bands = self.data.shape[2]
        self.band_mask = np.ones(num_bands, bool) if self.band_mask is None else np.array(self.band_mask, bool)
        for name, value in (("fwhm", self.fwhm), ("band_mask", self.band_mask)):
            if value is not None and value.shape != (num_bands,):
                raise ValueError(f"`{name}` has shape {value.shape}; the cube has {num_bands} bands")
        pixels = self.data.shape[:2]
        self.nodata_mask = np.zeros(pixels, bool) if self.nodata_mask is None else np.array(self.nodata_mask, bool)
        if self.nodata_mask.shape != pixels:
            raise ValueError(f"`nodata_mask` has shape {self.nodata_mask.shape}; the cube is {pixels} pixels")
        finite = np.isfinite(self.data)
        if not finite.all():
            self.data = np.where(finite, self.data, np.float32(np.nan))
            self.band_mask, self.nodata_mask = _missing(finite, self.band_mask, self.nodata_mask)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns, bands (H, W, B)."""
        height, width, bands = self.data.shape
        return height, width, bands

    @property
    def num_bands(self) -> int:
        """Number of bands B, bad ones included."""
        return self.data.shape[2]


def _checked_data(data: Any) -> np.ndarray:
    """Any array-like as (H, W, B) float32."""
    if hasattr(data, "detach"):  # torch tensor
        data = data.detach().cpu()
        data = (data.float() if data.is_floating_point() else data).numpy()
    if isinstance(data, np.ma.MaskedArray):
        data = np.ma.filled(data.astype(np.float32), np.nan)
    array = np.asarray(data)
    if np.iscomplexobj(array):
        raise ValueError(f"`cube` is complex ({array.dtype}); give reflectance as real numbers, e.g. `abs(cube)`")
    if array.dtype.kind not in "fiu":
        raise ValueError(f"`cube` must hold integers or floats, got dtype {array.dtype}")
    if array.ndim != 3:
        raise ValueError(f"`cube` must have the shape (H, W, B), rows x columns x bands; got {array.shape}")
    if 0 in array.shape:
        raise ValueError(f"`cube` is empty: shape {array.shape}")
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which counts as missing
        return array.astype(np.float32, copy=False)


def _missing(finite: np.ndarray, band_mask: np.ndarray, nodata_mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Complete the masks from what is finite (H, W, B): first empty pixels, then empty bands, then single gaps."""
    nodata = nodata_mask | ~(finite & band_mask).any(axis=2)
    if not nodata.all():
        band_mask = band_mask & finite[~nodata].any(axis=0)
    return band_mask, nodata | ~finite[:, :, band_mask].all(axis=2)


def _check_band_axis(shape: tuple[int, ...], num_wavelengths: int) -> None:
    if shape[2] == num_wavelengths:
        return
    if shape[0] == num_wavelengths:
        raise ValueError(
            f"`cube` has the shape {shape} and there are {num_wavelengths} wavelengths: its bands come first. "
            "Give it as (H, W, B): `cube.transpose(1, 2, 0)`"
        )
    if shape[1] == num_wavelengths:
        raise ValueError(
            f"`cube` has the shape {shape} and there are {num_wavelengths} wavelengths: its bands are in the middle. "
            "Give it as (H, W, B): `cube.transpose(0, 2, 1)`"
        )
    raise ValueError(f"`wavelengths` has {num_wavelengths} values, `cube` has {shape[2]} bands; give one per band")
