"""Results to disk. Every file is written under a temporary name and renamed when it is complete."""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .wavelengths import to_nanometers

__all__ = [
    "GEOGRAPHIC_KEYS",
    "atomic_path",
    "header_lines",
    "write_cube",
    "write_envi",
    "write_envi_pair",
    "write_json",
    "write_npz",
]

# What still holds for a map made from a cube: where it lies, not what its bands were.
GEOGRAPHIC_KEYS = (
    "map info",
    "projection info",
    "coordinate system string",
    "geo points",
    "pixel size",
    "rpc info",
    "x start",
    "y start",
)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`, with its suffix; renamed to `path` when the block ends without an error.

    Args:
        path: file that is wanted.

    Yields:
        Path to write to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_envi(
    path: str | os.PathLike[str],
    array: np.ndarray,
    band_names: Sequence[str],
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write maps as an ENVI image, float32, band sequential: `NAME.img` and `NAME.hdr`.

    Args:
        path: `NAME`, `NAME.img` or `NAME.hdr`.
        array: (H, W, C); NaN = nodata.
        band_names: C names; commas and braces, which an ENVI header can't hold, are replaced.
        metadata: header of the cube that the maps come from; its map info and coordinate system are kept.

    Returns:
        The header's path.

    Raises:
        ValueError: `array` isn't (H, W, C), or the number of names is not C.
    """
    array = np.asarray(array)
    if array.ndim != 3 or array.dtype.kind not in "fiub":
        raise ValueError(f"`array` must be real numbers (H, W, C), got {array.dtype} {array.shape}")
    if len(band_names) != array.shape[2]:
        raise ValueError(f"`band_names` has {len(band_names)} entries for {array.shape[2]} maps")
    header = _image_header(array) | {"band names": list(band_names)}
    header |= {key: value for key, value in (metadata or {}).items() if key in GEOGRAPHIC_KEYS}
    if not np.isfinite(array).all():
        header["data ignore value"] = "nan"
    return write_envi_pair(path, ".img", np.moveaxis(array, 2, 0), header)


def write_cube(
    path: str | os.PathLike[str],
    cube: np.ndarray,
    wavelengths: Any = None,
    fwhm: Any = None,
    band_mask: Any = None,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write a cube as an ENVI image, float32 reflectance: `NAME.img` and `NAME.hdr`.

    Args:
        path: `NAME`, `NAME.img` or `NAME.hdr`.
        cube: (H, W, B) reflectance; NaN = nodata.
        wavelengths: (B,) in nm or micrometres, or None.
        fwhm: (B,) in the unit of `wavelengths`, or None.
        band_mask: (B,) bool, True = good band, or None.
        metadata: header to take map info and coordinate system from.

    Returns:
        The header's path.

    Raises:
        ValueError: shapes that don't agree.
    """
    cube = np.asarray(cube)
    if cube.ndim != 3 or cube.dtype.kind not in "fiu":
        raise ValueError(f"`cube` must be real numbers (H, W, B), got {cube.dtype} {cube.shape}")
    header = _image_header(cube)
    header |= {key: value for key, value in (metadata or {}).items() if key in GEOGRAPHIC_KEYS}
    lists: dict[str, Any] = {}
    if wavelengths is not None:
        lists["wavelength"], lists["fwhm"] = to_nanometers(wavelengths, None, fwhm)
        header["wavelength units"] = "Nanometers"
    if band_mask is not None:
        lists["bbl"] = np.asarray(band_mask).astype(int)
    for key, values in lists.items():
        if values is None:
            continue
        if len(values) != cube.shape[2]:
            raise ValueError(f"`{key}` has {len(values)} values for {cube.shape[2]} bands")
        header[key] = values
    if not np.isfinite(cube).all():
        header["data ignore value"] = "nan"
    return write_envi_pair(path, ".img", np.moveaxis(cube, 2, 0), header)


def _image_header(array: np.ndarray) -> dict[str, Any]:
    lines, samples, bands = array.shape
    return {"file type": "ENVI Standard", "samples": samples, "lines": lines, "bands": bands, "interleave": "bsq"}


def write_envi_pair(
    path: str | os.PathLike[str], data_suffix: str, planes: Iterable[np.ndarray], header: Mapping[str, Any]
) -> Path:
    """Write planes as little-endian float32, then their header: a header never describes a file that isn't there."""
    path = Path(path)
    stem = path.with_suffix("") if path.suffix.lower() in (".hdr", ".img", ".sli", ".dat") else path
    with atomic_path(stem.with_name(stem.name + data_suffix)) as data_path, open(data_path, "wb") as file:
        for plane in planes:
            file.write(np.ascontiguousarray(plane, dtype="<f4").tobytes())
    header_path = stem.with_name(stem.name + ".hdr")
    fixed = {"header offset": 0, "data type": 4, "byte order": 0}
    with atomic_path(header_path) as temporary:
        temporary.write_text(header_lines({**header, **fixed}), encoding="utf-8")
    return header_path


def header_lines(header: Mapping[str, Any]) -> str:
    """The text of an ENVI header."""
    return "\n".join(["ENVI", *(f"{key} = {_header_value(key, value)}" for key, value in header.items())]) + "\n"


def _header_value(key: str, value: Any) -> str:
    """A value in ENVI's syntax; lists in braces, numbers so that they read back equal."""
    if isinstance(value, str):
        return value
    if np.ndim(value) == 0:
        return str(value)
    if key == "coordinate system string":  # `spectral` has split this text at its commas
        return "{" + ",".join(str(item) for item in value) + "}"
    if np.asarray(value).dtype.kind in "fiu":
        return "{ " + ", ".join(repr(item) for item in np.asarray(value).tolist()) + " }"
    table = str.maketrans({",": ";", "{": "(", "}": ")", "\n": " ", "\r": " "})
    items = [str(item).translate(table).strip() or f"unnamed {index + 1}" for index, item in enumerate(value)]
    return "{ " + ", ".join(items) + " }"


def write_npz(path: str | os.PathLike[str], **arrays: Any) -> Path:
    """Write named arrays as a compressed .npz; names whose value is None are left out.

    Args:
        path: the file.
        **arrays: numeric arrays or lists of text.

    Returns:
        The path.

    Raises:
        ValueError: an array that would have to be pickled.
    """
    path = Path(path)
    solid = {key: np.asarray(value) for key, value in arrays.items() if value is not None}
    for key, value in solid.items():
        if value.dtype.kind == "O":
            raise ValueError(f"`{key}` can't be stored without pickle; give numbers or text of one shape")
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **solid)
    return path


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> Path:
    """Write a dictionary as JSON that any reader takes: numpy values as numbers, NaN and infinity as null.

    Args:
        path: the file.
        content: nested dictionaries, lists, numbers, text, paths and arrays.

    Returns:
        The path.
    """
    path = Path(path)
    with atomic_path(path) as temporary:
        text = json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray) or hasattr(value, "detach"):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)
