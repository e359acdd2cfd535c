"""The cube as the rest of the library sees it: (H, W, B) reflectance, wavelengths in nm, what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .axes import check_band_axis
from .bands import WATER_VAPOUR, Intervals, outside_intervals
from .georeference import Georeference, OrthoGrid
from .source import FunctionSource, PixelSource, read_window
from .wavelengths import span, to_nanometers

__all__ = ["Cube", "measured"]


class Cube:
    """A hyperspectral image and what its file says about it.

    The pixels may still be in their file: then `window` reads a part of them, and `data` and `nodata_mask` read them
    all, once. Bands and pixels without a finite value never count as measured. A band that is missing in every pixel
    is a bad band; a pixel that misses a good band is nodata.

    Args:
        data: (H, W, B) reflectance, converted to float32, missing values NaN; or a `PixelSource`.
        wavelengths: (B,) band centres in nm (micrometres are converted), in file order, or None.
        fwhm: (B,) full widths at half maximum in nm, or None.
        band_mask: (B,) bool, True = good band; None = all good.
        nodata_mask: (H, W) bool, True = nodata; None = from `data`.
        scale: what the file's numbers were divided by.
        metadata: header of the file (ENVI: map info, coordinate system, ...).
        path: file that it was read from.
        name: short name for titles.
        georeference: where the pixels lie on the ground, or None.
        ortho: the map onto which the sensor's grid can be laid out (EMIT), or None.
        product: what the file is, e.g. "EMIT L2A reflectance".

    Raises:
        ValueError: wrong number of dimensions, complex or non-numeric values, or counts that don't agree; also
            (B, H, W) data, where the wavelengths prove it.
    """

    def __init__(
        self,
        data: Any,
        wavelengths: Any = None,
        fwhm: Any = None,
        band_mask: Any = None,
        nodata_mask: Any = None,
        scale: float = 1.0,
        metadata: Mapping[str, Any] | None = None,
        path: Path | None = None,
        name: str = "",
        georeference: Georeference | None = None,
        ortho: OrthoGrid | None = None,
        product: str = "",
    ) -> None:
        lazy = isinstance(data, PixelSource)
        self._pixels: PixelSource | np.ndarray = data if lazy else _checked_data(data)
        self._nodata: np.ndarray | None = None
        self.saturation: float = data.saturation if lazy else np.inf
        self.wavelengths: np.ndarray | None = None
        if wavelengths is not None:
            self.wavelengths, fwhm = to_nanometers(wavelengths, None, fwhm)
            check_band_axis(self.shape, len(self.wavelengths), "wavelengths")
        self.fwhm: np.ndarray | None = None if fwhm is None else np.asarray(fwhm, dtype=np.float64)
        self.band_mask: np.ndarray = np.ones(self.num_bands, bool) if band_mask is None else np.array(band_mask, bool)
        for label, value in (("fwhm", self.fwhm), ("band_mask", self.band_mask)):
            if value is not None and value.shape != (self.num_bands,):
                raise ValueError(f"`{label}` has shape {value.shape}; the cube has {self.num_bands} bands")
        self.scale = scale
        self.metadata: Mapping[str, Any] = metadata or {}
        self.path = path
        self.name = name
        self.georeference = georeference
        self.ortho = ortho
        self.product = product
        if not lazy:
            self._complete(nodata_mask)

    def __repr__(self) -> str:
        height, width, bands = self.shape
        bad = int((~self.band_mask).sum())
        parts = [f"{height} x {width} pixels", f"{bands} bands" + (f" ({bad} bad)" if bad else "")]
        parts += [span(self.wavelengths), *([str(self.path)] if self.path else [])]
        return f"<Cube: {', '.join(parts)}>"

    def _complete(self, nodata_mask: Any) -> None:
        """Make values and masks of the pixels, which are in memory, agree."""
        data = self._pixels
        assert isinstance(data, np.ndarray)
        pixels = data.shape[:2]
        nodata = np.zeros(pixels, bool) if nodata_mask is None else np.array(nodata_mask, bool)
        if nodata.shape != pixels:
            raise ValueError(f"`nodata_mask` has shape {nodata.shape}; the cube is {pixels} pixels")
        finite = np.isfinite(data)
        if not finite.all():
            self._pixels = np.where(finite, data, np.float32(np.nan))
            self.band_mask, nodata = _missing(finite, self.band_mask, nodata)
        self._nodata = nodata

    @property
    def data(self) -> np.ndarray:
        """(H, W, B) float32 reflectance, NaN where missing; reads the file the first time."""
        if not isinstance(self._pixels, np.ndarray):
            height, width, _ = self.shape
            self._pixels = _checked_data(self._pixels.read(slice(0, height), slice(0, width)))
            self._complete(None)
        return self._pixels

    @property
    def nodata_mask(self) -> np.ndarray:
        """(H, W) bool, True = nodata; reads the file the first time."""
        if self._nodata is None:
            _ = self.data
        assert self._nodata is not None
        return self._nodata

    @property
    def in_memory(self) -> bool:
        """Whether the pixels have been read."""
        return isinstance(self._pixels, np.ndarray)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns, bands (H, W, B)."""
        height, width, bands = self._pixels.shape
        return height, width, bands

    @property
    def num_bands(self) -> int:
        """Number of bands B, bad ones included."""
        return self._pixels.shape[2]

    def window(self, rows: slice, columns: slice) -> Cube:
        """A part of the cube, read into memory. Its good bands are those of the whole.

        Args:
            rows: of the cube.
            columns: of the cube.

        Returns:
            The part, with its own georeference; a pixel that misses a good band is nodata.

        Raises:
            OSError: the part can't be read; the message names file and window.
        """
        height, width, _ = self.shape
        rows, columns = slice(*rows.indices(height)), slice(*columns.indices(width))
        data = _checked_data(read_window(self._pixels, rows, columns))
        nodata = ~np.isfinite(data[:, :, self.band_mask]).all(axis=2)
        if self._nodata is not None:
            nodata |= self._nodata[rows, columns]
        place = None if self.georeference is None else self.georeference.window(rows.start, columns.start)
        return self._like(data, nodata_mask=nodata, georeference=place, ortho=None)

    def with_good_bands(self, band_mask: Any) -> Cube:
        """The same cube with other good bands; nothing is read.

        Args:
            band_mask: (B,) bool, True = good band.

        Returns:
            A cube (H, W, B) that shares the pixels.
        """
        return self._like(self._pixels, band_mask=band_mask, nodata_mask=self._nodata)

    def replaced(self, wavelengths: Any = None, scale: float | None = None) -> Cube:
        """The same cube with other wavelengths or another scale; nothing is read.

        Args:
            wavelengths: (B,) in nm or micrometres, instead of the cube's.
            scale: what the file's numbers are divided by, instead of what the file says.

        Returns:
            A cube (H, W, B) that shares the pixels, or divides them when they are read.
        """
        changes: dict[str, Any] = {} if wavelengths is None else {"wavelengths": wavelengths, "fwhm": None}
        factor = 1.0 if scale is None else scale / self.scale
        if factor == 1.0:
            return self._like(self._pixels, nodata_mask=self._nodata, **changes)
        cube = self._like(_divided(self._pixels, factor), nodata_mask=self._nodata, **changes)
        cube.scale, cube.saturation = self.scale * factor, self.saturation / factor
        return cube

    def without_bands(self, bands: str | Intervals) -> Cube:
        """The same cube with more (or fewer) bands left out; nothing is read.

        Args:
            bands: "file" (what the file says), "none" (keep all bands), "water" (what the file says, and water
                vapour: 1310-1490, 1770-2050, above 2440 nm), or intervals in nm that are left out besides.

        Returns:
            The cube.

        Raises:
            ValueError: intervals for a cube without wavelengths, or no band is left.
        """
        if bands == "file":
            return self
        if bands == "none":
            return self.with_good_bands(None)
        intervals = WATER_VAPOUR if bands == "water" else bands
        if isinstance(intervals, str):
            raise ValueError(f'`bands` must be "file", "none", "water" or intervals, got {bands!r}')
        if self.wavelengths is None:
            if bands == "water":
                return self
            raise ValueError("bands can't be left out by wavelength: the cube has no wavelengths")
        good = self.band_mask & outside_intervals(self.wavelengths, intervals)
        if good.sum() < 2:
            raise ValueError(
                f"{good.sum()} of {self.num_bands} bands left ({self.wavelengths.min():.0f} to "
                f"{self.wavelengths.max():.0f} nm) after those that are masked; leave out fewer"
            )
        return self.with_good_bands(good)

    def _like(self, data: Any, **changes: Any) -> Cube:
        kept = ("wavelengths", "fwhm", "band_mask", "scale", "metadata", "path", "name", "georeference", "ortho")
        cube = Cube(data, **({key: getattr(self, key) for key in kept} | {"product": self.product} | changes))
        cube.saturation = self.saturation
        return cube


def measured(data: np.ndarray, nodata: np.ndarray) -> np.ndarray:
    """The pixels that are unmixed: those with a number in every good band, unless it is the same zero or negative one.

    Args:
        data: (H, W, K) good bands.
        nodata: (H, W) bool, True = nodata.

    Returns:
        (H, W) bool.
    """
    filled = (data[:, :, 0] <= 0) & (data == data[:, :, :1]).all(axis=2)
    return np.isfinite(data).all(axis=2) & ~nodata & ~filled


def _divided(pixels: PixelSource | np.ndarray, factor: float) -> PixelSource | np.ndarray:
    """Pixels divided by a number, in memory or when they are read."""
    if isinstance(pixels, np.ndarray):
        return pixels / np.float32(factor)
    path = getattr(pixels, "path", "cube")
    return FunctionSource(path, pixels.shape, lambda rows, columns: pixels.read(rows, columns) / np.float32(factor))


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
