"""One function for every file of a cube: ENVI, EMIT, EnMAP, PRISMA, GeoTIFF, .npy, .npz and .mat (v5 to v7.3)."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .bands import Intervals
from .cube import Cube
from .envi import DATA_SUFFIXES, cube_from_spyfile, find_envi_pair, open_envi
from .geotiff import enmap_files, read_enmap, read_geotiff
from .hdf import read_hdf
from .matlab import read_mat
from .source import FunctionSource, largest_number

__all__ = ["HDF_SUFFIXES", "TIFF_SUFFIXES", "as_cube", "load_npy", "load_npz", "naming", "open_cube", "read_cube"]

HDF_SUFFIXES = (".nc", ".nc4", ".he5", ".h5", ".hdf5")
TIFF_SUFFIXES = (".tif", ".tiff")

_CUBE_KEYS = ("cube", "Y")
_WAVELENGTH_KEYS = ("wavelengths", "wavelength", "wavelengths_nm", "wl", "lambda")
_ROW_KEYS = ("nRow", "H", "rows", "lines", "height")
_COLUMN_KEYS = ("nCol", "W", "cols", "columns", "samples", "width")


def read_cube(
    path: str | os.PathLike[str], wavelengths: Any = None, scale: float | None = None, bands: str | Intervals = "auto"
) -> Cube:
    """Read a hyperspectral cube into memory: `open_cube`, and then its pixels.

    Args:
        path: the file.
        wavelengths: (B,) in nm or micrometres, instead of what the file says.
        scale: divide the numbers by this instead of the file's scale factor.
        bands: which bands to leave out, as in `open_cube`.

    Returns:
        The cube in reflectance.

    Raises:
        FileNotFoundError, ImportError, ValueError: as `open_cube`.

    Example:
        >>> import numpy as np, tempfile, os
        >>> path = os.path.join(tempfile.mkdtemp(), "scene.npy")
        >>> np.save(path, np.full((4, 5, 30), 0.2))
        >>> read_cube(path, wavelengths=np.linspace(0.4, 2.5, 30)).wavelengths[:2].round(1).tolist()
        [400.0, 472.4]
    """
    cube = open_cube(path, wavelengths, scale, bands)
    with naming(path):
        _ = cube.data
    return cube


def open_cube(
    path: str | os.PathLike[str], wavelengths: Any = None, scale: float | None = None, bands: str | Intervals = "auto"
) -> Cube:
    """Open a hyperspectral cube; its pixels are read when they are needed, window by window if so wished.

    | file | what is read |
    |---|---|
    | ENVI (`.hdr`, or its data file) | any interleave; wavelengths, fwhm, bbl, scale factor or gains, ignore value |
    | EMIT L2A (`.nc`) | good wavelengths, nodata, lookup table onto the map; needs h5py |
    | PRISMA L2D (`.he5`) | VNIR and SWIR, scaled; needs h5py |
    | EnMAP L2A (image, metadata or their folder) | wavelengths, gains, nodata, georeference; needs rasterio |
    | GeoTIFF | wavelengths where its tags or band names say them, scales, nodata; needs rasterio |
    | `.npy` | (H, W, B) |
    | `.npz` | `cube` or `Y` or the only 3-D array; `wavelengths`, `fwhm`, `band_mask`, `nodata_mask` if there |
    | `.mat` | the same names; `Y` may be (B, N) with `nRow` and `nCol`, pixels in MATLAB's column order |

    Wavelengths stay in file order, in nm. Missing values (ignore value, NaN) are NaN. `.npz` and `.mat` are read at
    once.

    Args:
        path: the file.
        wavelengths: (B,) in nm or micrometres, instead of what the file says.
        scale: divide the numbers by this instead of the file's scale factor.
        bands: which bands to leave out: "file" (what the file says), "water" (and water vapour: 1310-1490, 1770-2050,
            above 2440 nm), "none", intervals in nm, or "auto": "water" for a product of an agency that brings no list
            of good bands of its own (EnMAP, PRISMA), else "file".

    Returns:
        The cube.

    Raises:
        FileNotFoundError: the file, its ENVI header or its data file is missing.
        ImportError: the library for this format is missing; the message says what to install.
        ValueError: damaged or truncated file, unknown type, complex values, wrong shapes, wavelengths that don't fit,
            or no band is left. The message names the file.
    """
    path = Path(path)
    if scale is not None and not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"`scale` must be positive, got {scale}")
    with naming(path):
        cube = _open(path, wavelengths, scale)
        if bands == "auto":
            bands = "water" if cube.product.startswith(("EnMAP", "PRISMA")) else "file"
        return cube.without_bands(bands)


def _open(path: Path, wavelengths: Any, scale: float | None) -> Cube:
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz", ".mat"):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        arrays = {".npy": load_npy, ".npz": load_npz, ".mat": read_mat}[suffix](path)
        return _cube_from_arrays(arrays, path, wavelengths, scale)
    if suffix in HDF_SUFFIXES:
        return _replaced(read_hdf(path), wavelengths, scale)
    if enmap_files(path) is not None:
        return _replaced(read_enmap(path), wavelengths, scale)
    if suffix in TIFF_SUFFIXES and not _has_header(path):
        return _replaced(read_geotiff(path), wavelengths, scale)
    if suffix not in ("", ".hdr", *DATA_SUFFIXES) and not _has_header(path):
        raise ValueError(
            f"{path}: files of type {suffix!r} can't be read; give ENVI (.hdr), GeoTIFF, EMIT (.nc), PRISMA (.he5), "
            ".npy, .npz or .mat (GDAL converts most others: `gdal_translate -of ENVI in out.img`)"
        )
    image = open_envi(path)
    if str(image.header.get("file type", "")).lower() == "envi spectral library":
        raise ValueError(f"{path}: is a spectral library, not an image; read it with `read_library`")
    return cube_from_spyfile(image, wavelengths, scale)


def _replaced(cube: Cube, wavelengths: Any, scale: float | None) -> Cube:
    """The cube with the user's wavelengths and scale instead of the file's; nothing is read."""
    return cube if wavelengths is None and scale is None else cube.replaced(wavelengths, scale)


def as_cube(cube: Any, wavelengths: Any = None, scale: float | None = None) -> Cube:
    """Anything that holds a cube as a Cube: array, tensor, file name, or what `spectral.open_image` returns.

    Args:
        cube: Cube, (H, W, B) array or tensor, path, or an image of `spectral` (its header is applied).
        wavelengths: (B,) in nm or micrometres; replaces those of `cube`.
        scale: the numbers are divided by this; None = by the file's scale factor, where there is one.

    Returns:
        The cube; `cube` itself where it is a Cube and nothing is replaced.

    Raises:
        ValueError: as `read_cube`.
    """
    if isinstance(cube, (str, os.PathLike)):
        return read_cube(cube, wavelengths, scale)
    if isinstance(cube, Cube):
        if wavelengths is None and scale is None:
            return cube
        return cube.replaced(wavelengths, scale)
    if hasattr(cube, "bands") and hasattr(cube, "metadata"):  # SpyFile, SubImage or ImageArray of `spectral`
        return cube_from_spyfile(cube, wavelengths, scale)
    plain = Cube(cube, wavelengths=wavelengths)
    return plain if scale is None else as_cube(plain, scale=scale)


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Put the file's name in front of the message of a ValueError raised inside."""
    try:
        yield
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a .npz file; never unpickles.

    Args:
        path: the file.

    Returns:
        Arrays by name.

    Raises:
        ValueError: damaged, truncated, or with pickled objects inside.
    """
    with naming(path):
        try:
            with np.load(path, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except (zipfile.BadZipFile, EOFError, OSError, AttributeError) as error:
            raise ValueError(f"not a readable .npz file ({error}); it may be damaged or truncated") from error
        except ValueError as error:
            raise _pickle_error(error) from error


def load_npy(path: Path) -> dict[str, np.ndarray]:
    """The array of a .npy file, mapped, under the name `cube`; never unpickles.

    Args:
        path: the file.

    Returns:
        The array by name, as `load_npz` returns them.

    Raises:
        ValueError: damaged, truncated, or pickled.
    """
    with naming(path):
        try:
            return {"cube": np.load(path, mmap_mode="r", allow_pickle=False)}
        except (EOFError, OSError) as error:
            raise ValueError(f"not a readable .npy file ({error}); it may be damaged or truncated") from error
        except ValueError as error:
            raise _pickle_error(error) from error


def _pickle_error(error: ValueError) -> ValueError:
    if "allow_pickle" in str(error) or "Python objects" in str(error):
        return ValueError(
            "not a numpy file, or pickled Python objects, which are never loaded; save plain numeric arrays"
        )
    return ValueError(f"not readable ({error}); it may be damaged or truncated")


def _has_header(path: Path) -> bool:
    try:
        find_envi_pair(path)
    except FileNotFoundError:
        return False
    return True


def _cube_from_arrays(arrays: dict[str, np.ndarray], path: Path, wavelengths: Any, scale: float | None) -> Cube:
    key = _cube_key(arrays)
    data: Any = arrays[key]
    if isinstance(data, np.memmap) and data.ndim == 3 and data.dtype.kind in "fiu" and data.size:
        return _replaced(_mapped(data, path, wavelengths), None, scale)
    if wavelengths is None:
        wavelengths = next((np.ravel(arrays[name]) for name in _WAVELENGTH_KEYS if name in arrays), None)
    if data.ndim == 2:
        data = _unfold(key, data, arrays)
    fwhm, mask, nodata = arrays.get("fwhm"), arrays.get("band_mask", arrays.get("bbl")), arrays.get("nodata_mask")
    if data.dtype.kind in "fiu" and scale is not None:
        data = data.astype(np.float32) / np.float32(scale)
    return Cube(
        data,
        wavelengths=wavelengths,
        fwhm=None if fwhm is None else np.ravel(fwhm),
        band_mask=None if mask is None else np.ravel(mask) > 0,
        nodata_mask=nodata,
        scale=1.0 if scale is None else float(scale),
        path=path,
        name=path.stem,
    )


def _mapped(data: np.memmap, path: Path, wavelengths: Any) -> Cube:
    """A .npy file as a cube whose windows are read when they are needed."""

    def read(rows: slice, columns: slice) -> np.ndarray:
        values = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped again, so that memory is given back
        return np.array(values[rows, columns], dtype=np.float32)

    height, width, bands = data.shape
    source = FunctionSource(path, (height, width, bands), read, largest_number(data.dtype))
    return Cube(source, wavelengths=wavelengths, path=path, name=path.stem)


def _cube_key(arrays: dict[str, np.ndarray]) -> str:
    for key in _CUBE_KEYS:
        if key in arrays:
            return key
    solid = [key for key, value in arrays.items() if value.ndim == 3]
    if len(solid) == 1:
        return solid[0]
    sized = any(key in arrays for key in _ROW_KEYS)
    flat = [key for key, value in arrays.items() if value.ndim == 2 and min(value.shape) > 1]
    if not solid and sized and flat:  # Samson is distributed as (B, N) under the name V
        return max(flat, key=lambda key: arrays[key].size)
    found = ", ".join(f"{key} {value.shape}" for key, value in arrays.items()) or "no numeric arrays"
    raise ValueError(f'can\'t tell which array is the cube (found {found}); name it "cube", shape (H, W, B)')


def _unfold(key: str, data: np.ndarray, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """(B, N) or (N, B) pixels of MATLAB, N counted down the columns, as (H, W, B)."""
    sizes = [
        next((int(arrays[name].item()) for name in keys if name in arrays), 0) for keys in (_ROW_KEYS, _COLUMN_KEYS)
    ]
    rows, columns = sizes
    if not rows or not columns:
        raise ValueError(
            f"`{key}` has the shape {data.shape}; save it as (H, W, B), or add the numbers of rows and columns "
            "as `nRow` and `nCol`"
        )
    if data.shape[1] != rows * columns:
        data = data.T
    if data.shape[1] != rows * columns:
        raise ValueError(f"`{key}` {data.shape[::-1]} doesn't have nRow x nCol = {rows} x {columns} pixels")
    return data.reshape(-1, columns, rows).transpose(2, 1, 0)
