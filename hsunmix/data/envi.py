"""ENVI images by `spectral`: finding the pair of files, checking them against each other, applying the header."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .cube import Cube
from .georeference import Georeference
from .source import FunctionSource, largest_number
from .wavelengths import to_nanometers

__all__ = ["cube_from_spyfile", "find_envi_pair", "ignored", "open_envi", "parse_numbers"]

DATA_SUFFIXES = (".img", ".dat", ".bsq", ".bil", ".bip", ".raw", ".bin", ".sli", ".hyspex")
_NO_HEADER = "the header says how the bytes are laid out; put it beside the data, named like the data with .hdr"


def find_envi_pair(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Header and data file, from either of the two or from their common name without a suffix.

    Args:
        path: `scene.hdr`, `scene.img`, `scene.img.hdr` or `scene`.

    Returns:
        Header and data file.

    Raises:
        FileNotFoundError: one of the two is missing; the message says where it was looked for.
    """
    path = Path(path)
    if path.suffix.lower() == ".hdr":
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        return path, _data_file(path)
    headers = [path.with_name(path.name + end) for end in (".hdr", ".HDR")]
    if path.suffix.lower() in DATA_SUFFIXES:
        headers += [path.with_suffix(end) for end in (".hdr", ".HDR")]
    header = next((candidate for candidate in headers if candidate.is_file()), None)
    if header is None:
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file")
        looked = ", ".join(dict.fromkeys(candidate.name for candidate in headers))
        raise FileNotFoundError(f"{path}: no ENVI header beside it (looked for {looked}); {_NO_HEADER}")
    return header, path if path.is_file() else _data_file(header)


def _data_file(header: Path) -> Path:
    stem = header.with_suffix("")
    names = [stem.name + end for suffix in ("", *DATA_SUFFIXES) for end in dict.fromkeys((suffix, suffix.upper()))]
    for name in names:
        if header.with_name(name).is_file():
            return header.with_name(name)
    raise FileNotFoundError(
        f"{header}: no data file beside it; looked for {stem.name} alone and with {', '.join(DATA_SUFFIXES)}"
    )


def open_envi(path: str | os.PathLike[str]) -> Any:
    """What `spectral.io.envi.open` returns, after checking header and data file against each other.

    Args:
        path: header or data file.

    Returns:
        `spectral` image (lazy) or spectral library; the unparsed header is `.header`.

    Raises:
        FileNotFoundError: header or data file is missing.
        ValueError: the header is incomplete or contradicts itself, the data are complex, compressed or truncated.
    """
    from spectral import SpyException
    from spectral.io import envi

    header_path, data_path = find_envi_pair(path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Parameters with non-lowercase names")
        try:
            with _utf8(header_path) as readable:
                header = envi.read_envi_header(readable)
                _check_header(header, header_path, data_path)
                image = envi.open(readable, str(data_path))
        except (ValueError, KeyError, SpyException) as error:
            if str(header_path.with_suffix("")) in str(error):
                raise
            raise ValueError(f"{header_path}: not a usable ENVI header ({error})") from error
    image.header = header
    return image


@contextmanager
def _utf8(header_path: Path) -> Iterator[str]:
    """The header's name; of a copy in UTF-8 where a unit like µm was written in Latin-1."""
    content = header_path.read_bytes()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / header_path.name
            copy.write_text(content.decode("latin-1"), encoding="utf-8")
            yield str(copy)
    else:
        yield str(header_path)


def _check_header(header: dict[str, Any], header_path: Path, data_path: Path) -> None:
    missing = [key for key in ("samples", "lines", "bands", "data type", "interleave") if key not in header]
    if missing:
        raise ValueError(f"{header_path}: the header has no {', '.join(repr(key) for key in missing)}")
    header.setdefault("byte order", "0")
    code, interleave = str(header["data type"]), str(header["interleave"]).lower()
    from spectral.io.envi import envi_to_dtype

    if code in ("6", "9"):
        raise ValueError(f"{header_path}: the data are complex (data type {code}); unmixing needs real reflectance")
    if code not in envi_to_dtype:
        raise ValueError(f"{header_path}: unknown data type {code}")
    if interleave not in ("bil", "bip", "bsq"):
        raise ValueError(f"{header_path}: unknown interleave {interleave!r}; it must be bil, bip or bsq")
    if str(header.get("file compression", "0")) not in ("0", ""):
        raise ValueError(f"{header_path}: compressed data can't be read; store it uncompressed")
    sizes = [int(header[key]) for key in ("lines", "samples", "bands")]
    if min(sizes) < 1:
        raise ValueError(f"{header_path}: lines, samples and bands are {sizes}; all must be at least 1")
    expected = int(header.get("header offset", 0)) + int(np.prod(sizes)) * np.dtype(envi_to_dtype[code]).itemsize
    actual = data_path.stat().st_size
    layout = f"{sizes[0]} lines x {sizes[1]} samples x {sizes[2]} bands of data type {code}"
    if actual < expected:
        raise ValueError(
            f"{data_path}: truncated: {actual} bytes, but {header_path.name} describes {expected} ({layout}); "
            "copy the file again or correct the header"
        )
    if actual > expected:
        warnings.warn(
            f"{data_path}: {actual} bytes, {actual - expected} more than {header_path.name} describes ({layout})",
            stacklevel=2,
        )


def parse_numbers(header: dict[str, Any], key: str) -> np.ndarray | None:
    """Values of a header's list (`wavelength`, `fwhm`, `bbl`, ...) as float64, or None where it has none."""
    if key not in header:
        return None
    value = header[key]
    try:
        return np.array([float(item) for item in (value if isinstance(value, list) else [value])])
    except ValueError as error:
        raise ValueError(f"{key!r} in the header must be numbers, got {str(value)[:60]!r}") from error


def ignored(raw: np.ndarray, header: dict[str, Any], applied_scale: float = 1.0) -> np.ndarray | None:
    """Where values (..., B) equal the header's `data ignore value`, or None where there is none.

    A zero may be a measurement: an ignore value of 0 means pixels that are 0 in every band. Without an ignore value,
    pixels that are one and the same negative number in every band are missing: AVIRIS and AVIRIS-NG fill their edges
    so (-9999, -50, -0.005), often unsaid, and no spectrum looks like that.

    Args:
        raw: (..., B) numbers of the file.
        header: ENVI header.
        applied_scale: what `raw` has been divided by already.

    Returns:
        bool mask of the shape of `raw`, or None.
    """
    values = parse_numbers(header, "data ignore value")
    if values is None and raw.dtype.kind != "u":
        first = raw[..., :1]
        return np.broadcast_to((first < 0) & (raw == first).all(axis=-1, keepdims=True), raw.shape)
    if values is None or np.isnan(values[0]):
        return None
    value = values[0] / applied_scale
    if raw.dtype.kind == "f":  # the header's digits seldom give the same float32
        mask = np.isclose(raw, value, rtol=1e-6, atol=0)
    else:
        mask = raw == value
    return mask & mask.all(axis=-1, keepdims=True) if value == 0 else mask


def header_scale(header: dict[str, Any]) -> float:
    """`reflectance scale factor`: what the numbers are divided by; 1 where the header has none."""
    values = parse_numbers(header, "reflectance scale factor")
    scale = 1.0 if values is None else float(values[0])
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"'reflectance scale factor' in the header must be positive, got {scale}")
    return scale


def header_wavelengths(header: dict[str, Any]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """`wavelength` and `fwhm` in nm; None where the header has none or counts the bands instead."""
    unit = str(header.get("wavelength units", ""))
    wavelengths, fwhm = parse_numbers(header, "wavelength"), parse_numbers(header, "fwhm")
    if wavelengths is None or unit.strip().lower() == "index":
        return None, None
    return to_nanometers(wavelengths, unit, fwhm)


def cube_from_spyfile(image: Any, wavelengths: Any = None, scale: float | None = None) -> Cube:
    """What `spectral.open_image` returns as a cube in reflectance, read when its pixels are needed.

    Args:
        image: SpyFile (lazy), or ImageArray (what its `load()` returns: already scaled).
        wavelengths: (B,) in nm or micrometres, instead of the file's.
        scale: divide the numbers by this instead of the file's scale factor.

    Returns:
        Cube with wavelengths, scale factor, gains, bad bands, ignore value and map info of the header applied.
    """
    header = dict(image.metadata or {})
    numbers = _StoredNumbers(image, header, scale)
    fwhm = None
    if wavelengths is None:
        wavelengths, fwhm = header_wavelengths(header)
        if wavelengths is None and image.bands.centers is not None and "wavelength" not in header:
            wavelengths, fwhm = to_nanometers(image.bands.centers, image.bands.band_unit, image.bands.bandwidths)
    bad_bands = parse_numbers(header, "bbl")
    path = Path(image.filename) if getattr(image, "filename", None) else None
    source = FunctionSource(path or "cube", numbers.shape, numbers.read, numbers.saturation)
    return Cube(
        source if numbers.lazy else source.read(slice(None), slice(None)),
        wavelengths=wavelengths,
        fwhm=fwhm,
        band_mask=None if bad_bands is None else bad_bands > 0,
        scale=numbers.applied * numbers.remaining,
        metadata=header,
        path=path,
        name="" if path is None else path.stem,
        georeference=Georeference.from_envi(header),
    )


class _StoredNumbers:
    """The numbers of an image of `spectral`, and how they become reflectance.

    Attributes:
        lazy: windows are read from the file.
        applied: what the numbers have been divided by already.
        remaining: what they still have to be divided by.
    """

    def __init__(self, image: Any, header: dict[str, Any], scale: float | None) -> None:
        self.header = header
        self.lazy = not isinstance(image, np.ndarray) and hasattr(image, "open_memmap")
        self.applied, self.remaining = header_scale(header), 1.0  # ImageArray, SubImage: the scale has been applied
        if isinstance(image, np.ndarray):
            self._array = np.asarray(image)
        elif self.lazy:
            self.applied, self.remaining = 1.0, float(image.scale_factor)
            self._image = image
            self._array = self._map()
        else:
            self._array = image.read_subregion((0, image.nrows), (0, image.ncols))
        self.with_gains = scale is None and self.applied * self.remaining == 1.0
        if scale is not None:
            self.remaining = float(scale) / self.applied
        if self._array.dtype.kind == "c":
            raise ValueError("`cube` is complex; unmixing needs real reflectance")
        self.shape: tuple[int, int, int] = self._array.shape
        self.saturation = largest_number(self._array.dtype) / self.remaining
        if self.with_gains:
            _apply_gains(np.zeros((1, 1, self.shape[2]), np.float32), header)  # a wrong header is reported at once
        if self.lazy:
            del self._array  # mapped again for each window, so that a large file doesn't fill the memory

    def _map(self) -> np.ndarray:
        try:
            return self._image.open_memmap(interleave="bip")
        except (ValueError, OSError) as error:
            raise ValueError(f"{self._image.filename}: can't be read as its header describes it: {error}") from error

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Reflectance (h, w, B) of a window."""
        raw = np.array((self._map() if self.lazy else self._array)[rows, columns])
        mask = ignored(raw, self.header, self.applied)
        data = raw.astype(np.float32, order="C")
        if self.with_gains:
            _apply_gains(data, self.header)
        if self.remaining != 1.0:
            data /= np.float32(self.remaining)
        if mask is not None and mask.any():
            data[mask] = np.nan
        return data


def _apply_gains(data: np.ndarray, header: dict[str, Any]) -> None:
    """`data gain values` and `data offset values` (B,), which converters write instead of one scale factor."""
    for key, operation in (("data gain values", np.multiply), ("data offset values", np.add)):
        values = parse_numbers(header, key)
        if values is None:
            continue
        if values.shape != (data.shape[2],):
            raise ValueError(f"{key!r} in the header has {values.size} values for {data.shape[2]} bands")
        operation(data, values.astype(np.float32), out=data)
