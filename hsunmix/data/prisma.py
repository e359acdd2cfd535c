"""PRISMA L2D: HDF5-EOS with one cube per detector (rows, bands, columns), on a UTM grid.

Format: PRISMA Products Specification Document, ASI. Reflectance is `min + DN (max - min) / 65535`, wavelengths fall.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .bands import detector_overlap
from .cube import Cube
from .georeference import Georeference
from .hdf import attribute
from .source import FunctionSource

__all__ = ["PRISMA_SWATH", "cube_from_prisma"]

PRISMA_SWATH = "HDFEOS/SWATHS/PRS_L2D_HCO"
_LARGEST = 65535.0
_INVALID = 1  # in the error matrix: the pixel was already invalid in the L1 product


class _Detector:
    """One of the two cubes, with the bands that the product says are there."""

    def __init__(self, file: Any, path: Path, name: str) -> None:
        fields = file[f"{PRISMA_SWATH}/Data Fields"]
        if f"{name}_Cube" not in fields:
            raise ValueError(f"{path}: no {name}_Cube in {PRISMA_SWATH}")
        self.cube = fields[f"{name}_Cube"]
        key = name.capitalize()
        wavelengths, fwhm = (np.ravel(attribute(file, f"List_{item}_{key}", [])) for item in ("Cw", "Fwhm"))
        flags = np.ravel(attribute(file, f"List_Cw_{key}_Flags", np.ones(len(wavelengths))))
        if not len(wavelengths) == len(fwhm) == len(flags) == self.cube.shape[1]:
            raise ValueError(
                f"{path}: {name}_Cube {self.cube.shape} is (rows, bands, columns), but its wavelengths are "
                f"{len(wavelengths)} in List_Cw_{key}"
            )
        self.bands = np.flatnonzero((flags > 0) & (wavelengths > 0))
        self.wavelengths, self.fwhm = wavelengths[self.bands], fwhm[self.bands]
        self.low = float(attribute(file, f"L2Scale{key}Min", 0.0))
        self.high = float(attribute(file, f"L2Scale{key}Max", 1.0))
        errors = f"{name}_PIXEL_L2_ERR_MATRIX"
        self.errors = fields[errors] if errors in fields and fields[errors].shape == self.cube.shape else None

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Reflectance (h, w, B) of the detector's bands; a pixel that is 0 in all bands lies outside of the image."""
        numbers = np.asarray(self.cube[rows, :, columns])[:, self.bands].transpose(0, 2, 1)
        values = self.low + numbers.astype(np.float32) * np.float32((self.high - self.low) / _LARGEST)
        values[(numbers == 0).all(axis=2)] = np.nan
        if self.errors is not None:
            values[np.asarray(self.errors[rows, :, columns])[:, self.bands].transpose(0, 2, 1) == _INVALID] = np.nan
        return values


def cube_from_prisma(file: Any, path: Path) -> Cube:
    """The reflectance of an open PRISMA L2D file, VNIR bands first.

    Args:
        file: `h5py.File`.
        path: its name.

    Returns:
        The cube, not yet read; wavelengths in file order (falling in each detector). Where both detectors see, the
        SWIR bands are bad ones.

    Raises:
        ValueError: a cube or its wavelengths are missing or don't agree.
    """
    vnir, swir = _Detector(file, path, "VNIR"), _Detector(file, path, "SWIR")
    if vnir.cube.shape[::2] != swir.cube.shape[::2]:
        raise ValueError(f"{path}: VNIR_Cube {vnir.cube.shape} and SWIR_Cube {swir.cube.shape} have different pixels")
    height, _, width = vnir.cube.shape

    def read(rows: slice, columns: slice) -> np.ndarray:
        return np.concatenate([vnir.read(rows, columns), swir.read(rows, columns)], axis=2)

    overlap = detector_overlap(vnir.wavelengths, swir.wavelengths)
    place = _georeference(file, height, width)
    keys = ("Product_ID", "Product_StartTime", "Processor_Name", "Processing_Level", "Epsg_Code")
    about = {key: str(attribute(file, key)) for key in keys if key in file.attrs}
    return Cube(
        FunctionSource(path, (height, width, len(vnir.bands) + len(swir.bands)), read, min(vnir.high, swir.high)),
        wavelengths=np.concatenate([vnir.wavelengths, swir.wavelengths]),
        fwhm=np.concatenate([vnir.fwhm, swir.fwhm]),
        band_mask=np.concatenate([np.ones(len(vnir.bands), bool), ~overlap]),
        metadata=about | (place.envi_header() if place else {}),
        path=path,
        name=path.stem,
        georeference=place,
        product="PRISMA L2D reflectance",
    )


def _georeference(file: Any, height: int, width: int) -> Georeference | None:
    """From the corners, which are centres of pixels."""
    names = ("ULcorner_easting", "ULcorner_northing", "LRcorner_easting", "LRcorner_northing")
    corners = [attribute(file, f"Product_{name}") for name in names]
    code = attribute(file, "Epsg_Code")
    if code is None or any(corner is None for corner in corners) or min(height, width) < 2:
        return None
    left, top, right, bottom = (float(corner) for corner in corners)
    a, e = (right - left) / (width - 1), (bottom - top) / (height - 1)
    return Georeference((a, 0.0, left - a / 2, 0.0, e, top - e / 2), f"EPSG:{int(code)}")
