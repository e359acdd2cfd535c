"""EMIT L2A surface reflectance: netCDF-4 on the sensor's own grid, with a lookup table (GLT) onto a map.

Format: EMIT L2A Algorithm and User's Guide, NASA LP DAAC (EMITL2ARFL.001).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .cube import Cube
from .georeference import Georeference, OrthoGrid
from .hdf import attribute
from .source import FunctionSource

__all__ = ["cube_from_emit"]


def cube_from_emit(file: Any, path: Path) -> Cube:
    """The reflectance of an open EMIT L2A file.

    Args:
        file: `h5py.File`.
        path: its name.

    Returns:
        The cube (downtrack, crosstrack, bands), not yet read; bad bands are those that `good_wavelengths` says.

    Raises:
        ValueError: a variable is missing or has the wrong shape.
    """
    data = file["reflectance"]
    parameters = file["sensor_band_parameters"]
    if data.ndim != 3 or "wavelengths" not in parameters:
        raise ValueError(f"{path}: `reflectance` {data.shape} or its wavelengths are not as in EMIT L2A files")
    wavelengths = np.asarray(parameters["wavelengths"], dtype=np.float64)
    if len(wavelengths) != data.shape[2]:
        raise ValueError(f"{path}: {len(wavelengths)} wavelengths for {data.shape[2]} bands")
    good = np.asarray(parameters["good_wavelengths"]) > 0 if "good_wavelengths" in parameters else None
    fill = attribute(data, "_FillValue", -9999.0)

    def read(rows: slice, columns: slice) -> np.ndarray:
        values = np.asarray(data[rows, columns], dtype=np.float32)
        values[(values == np.float32(fill)) | (values < -9000)] = np.nan
        return values

    keys = ("title", "time_coverage_start", "time_coverage_end", "product_version", "software_build_version")
    return Cube(
        FunctionSource(path, data.shape, read),
        wavelengths=wavelengths,
        fwhm=np.asarray(parameters["fwhm"], dtype=np.float64) if "fwhm" in parameters else None,
        band_mask=good,
        metadata={key: str(attribute(file, key)) for key in keys if key in file.attrs},
        path=path,
        name=path.stem,
        ortho=_ortho_grid(file),
        product="EMIT L2A reflectance",
    )


def _ortho_grid(file: Any) -> OrthoGrid | None:
    """The geometry lookup table, or None where the file has none."""
    transform = attribute(file, "geotransform")
    if "location/glt_x" not in file or "location/glt_y" not in file or transform is None:
        return None
    x, a, b, y, d, e = (float(value) for value in np.ravel(transform))  # in GDAL's order
    crs = str(attribute(file, "spatial_ref", "EPSG:4326"))
    tables = [np.asarray(file[f"location/{name}"]) for name in ("glt_y", "glt_x")]
    small = [table.astype(np.int16) if np.abs(table).max(initial=0) < 2**15 else table for table in tables]
    return OrthoGrid(small[0], small[1], Georeference((a, b, x, d, e, y), crs))
