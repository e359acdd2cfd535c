"""MATLAB files as a dictionary of arrays: v5 to v7 by scipy, v7.3 (HDF5) by h5py."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

__all__ = ["read_mat"]

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
OTHER_CLASSES = ("cell", "struct", "object", "char", "sparse", "function", "opaque", "unknown")


def read_mat(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays at the top level of a MATLAB file, in MATLAB's order of axes.

    Args:
        path: `.mat` file of any version from 5 on.

    Returns:
        Arrays by variable name; structures, cells and functions are left out.

    Raises:
        ImportError: a v7.3 file without h5py; the message says what to install.
        ValueError: not a MATLAB file, or damaged.
    """
    path = Path(path)
    if is_hdf5(path):
        return _read_hdf5(path)
    from scipy.io import loadmat, whosmat

    try:
        numeric = [name for name, _, kind in whosmat(path) if kind not in OTHER_CLASSES]
        content = loadmat(path, variable_names=numeric)  # the others are not even unpacked
    except Exception as error:  # scipy raises a dozen types on damaged files
        raise ValueError(f"{path}: not a readable MATLAB file ({error}); it may be damaged or truncated") from error
    return {key: value for key, value in content.items() if not key.startswith("__") and _is_numeric(value)}


def is_hdf5(path: Path) -> bool:
    with open(path, "rb") as file:
        head = file.read(520)
    return head.startswith(_HDF5_SIGNATURE) or head[512:] == _HDF5_SIGNATURE


def _read_hdf5(path: Path) -> dict[str, np.ndarray]:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f"{path} is a MATLAB v7.3 file, which needs h5py: `pip install hsunmix[mat73]`, "
            "or save it in MATLAB with `save(..., '-v7')`"
        ) from error
    arrays = {}
    try:
        with h5py.File(path, "r") as file:
            for key, value in file.items():
                if isinstance(value, h5py.Dataset) and value.dtype.kind in "fiuV":
                    arrays[key] = _from_hdf5(value[()])
    except OSError as error:
        raise ValueError(
            f"{path}: not a readable MATLAB v7.3 file ({error}); it may be damaged or truncated"
        ) from error
    return arrays


def _from_hdf5(value: np.ndarray) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.names == ("real", "imag"):
        array = array["real"] + 1j * array["imag"]
    return array.T  # HDF5 stores MATLAB's column-major arrays with their axes reversed


def _is_numeric(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiuc"
