"""Opening HDF5 and netCDF-4 files (which are HDF5) by h5py, and what each kind of product calls itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .cube import Cube
from .optional import require

__all__ = ["attribute", "open_hdf", "read_hdf"]


def open_hdf(path: Path, what: str) -> Any:
    """An open `h5py.File`.

    Args:
        path: the file.
        what: the kind of product, for messages.

    Returns:
        The file, open for reading; it closes when it is no longer used.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: h5py is missing.
        ValueError: not HDF5, or truncated.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    h5py = require("h5py", "hdf", f"{path}: {what}")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: not a readable HDF5 file ({error}); it may be damaged or truncated") from error


def attribute(holder: Any, name: str, default: Any = None) -> Any:
    """An attribute as number, text or array; `default` where it is missing."""
    if name not in holder.attrs:
        return default
    value = holder.attrs[name]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray) and value.size == 1:
        return value.reshape(-1)[0].item()
    return value.item() if isinstance(value, np.generic) else value


def read_hdf(path: Path) -> Cube:
    """A product in netCDF-4 or HDF5: EMIT L2A or PRISMA L2D, told apart by what they hold.

    Args:
        path: `.nc`, `.he5`, `.h5` or `.hdf5` file.

    Returns:
        The cube, not yet read.

    Raises:
        ImportError: h5py is missing.
        ValueError: damaged, or neither of the two.
    """
    from .emit import cube_from_emit
    from .prisma import PRISMA_SWATH, cube_from_prisma

    file = open_hdf(path, "netCDF-4 or HDF5")
    if "reflectance" in file and "sensor_band_parameters" in file:
        return cube_from_emit(file, path)
    if PRISMA_SWATH in file:
        return cube_from_prisma(file, path)
    found = ", ".join(sorted(file)) or "nothing"
    level = " (PRISMA of another level: give the L2D product)" if "HDFEOS" in file else ""
    level = " (EMIT of another level: give L2A reflectance)" if "sensor_band_parameters" in file else level
    raise ValueError(f"{path}: neither EMIT L2A reflectance nor PRISMA L2D{level}; it holds {found}")
