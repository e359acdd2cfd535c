"""Which files are let in: only those that gradio received, under names of our own, within limits that errors name."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsunmix.data.envi import DATA_SUFFIXES
from hsunmix.data.readers import HDF_SUFFIXES, TIFF_SUFFIXES

from .session import Limits

if TYPE_CHECKING:
    from hsunmix.data import Cube

__all__ = ["check_shape", "display_name", "plain_errors", "receive_library", "receive_scene"]

SCENE_SUFFIXES = (*TIFF_SUFFIXES, *HDF_SUFFIXES, ".mat", ".npy", ".npz")
LIBRARY_SUFFIXES = (".csv", ".npz")
_BYTES = 8  # of one number, at most
_LONGEST = 120  # characters of a name; those of agencies have up to 90
_METADATA_BYTES = 16 * 2**20  # of an EnMAP product's XML, which has less than 1
_ENMAP_IMAGE = r"ENMAP.*-SPECTRAL_IMAGE(_COG)?"
_ENMAP = "ENMAP...-SPECTRAL_IMAGE.TIF and ENMAP...-METADATA.XML"
_TIFF_BEGINS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # TIFF and BigTIFF


def receive_scene(paths: Sequence[str], received: Path, folder: Path, limits: Limits) -> Path:
    """Take over the file or the two files of a scene.

    Args:
        paths: that the page was given.
        received: folder into which gradio puts files of visitors.
        folder: of this visitor.
        limits: what is let in.

    Returns:
        The file to open, in `folder`.

    Raises:
        ValueError: not a scene, one of two files missing, too large, or not sent by a visitor.
    """
    files = _arrived(paths, received, limits)
    path = _enmap(files, folder) or _single_or_pair(files, folder, SCENE_SUFFIXES, ".img", "scene")
    _check_content(path, limits)
    return path


def receive_library(paths: Sequence[str], received: Path, folder: Path, limits: Limits) -> Path:
    """As `receive_scene`, for a spectral library."""
    path = _single_or_pair(_arrived(paths, received, limits), folder, LIBRARY_SUFFIXES, ".sli", "library")
    _check_content(path, limits)
    return path


def _arrived(paths: Sequence[str], received: Path, limits: Limits) -> list[Path]:
    """The files, if a visitor has just sent them and they aren't too large together."""
    files = [_own_upload(path, received) for path in paths]
    size = sum(file.stat().st_size for file in files)
    if size > limits.upload:
        raise ValueError(f"The files have {size / 2**20:.0f} MiB; this page takes {limits.upload / 2**20:.0f} MiB.")
    return files


def _enmap(files: Sequence[Path], folder: Path) -> Path | None:
    """Image and metadata of an EnMAP product; None for other files.

    Raises:
        ValueError: one of the two is missing, or called otherwise than in the product.
    """
    metadata = [file for file in files if file.suffix.lower() == ".xml" and file.suffixes[-2:-1] != [".aux"]]
    images = [file for file in files if re.fullmatch(_ENMAP_IMAGE, file.stem, re.IGNORECASE)]
    images = [file for file in images if file.suffix.lower() in TIFF_SUFFIXES]
    if not metadata and not images:
        return None
    if not (len(files) == 2 and len(metadata) == len(images) == 1):
        names = ", ".join(display_name(file.name) for file in files)
        raise ValueError(
            f"Of an EnMAP scene choose two files at once, under the names that the product has: {_ENMAP}. Got {names}."
        )
    _check_metadata(metadata[0])
    image = display_name(images[0].name)
    _copy(metadata[0], folder, re.sub(r"SPECTRAL_IMAGE.*", "METADATA.XML", image, flags=re.IGNORECASE))
    return _copy(images[0], folder, image)


def _check_metadata(file: Path) -> None:
    """Refuse XML that grows when it is read: entities, which EnMAP doesn't use."""
    content = file.read_bytes() if file.stat().st_size <= _METADATA_BYTES else b"<!"
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content or b"\0" in content or content == b"<!":
        raise ValueError(f"{display_name(file.name)}: not the metadata of an EnMAP scene.")


def _single_or_pair(files: Sequence[Path], folder: Path, single: tuple[str, ...], data_suffix: str, what: str) -> Path:
    """One file, or header and data of ENVI.

    Raises:
        ValueError: one of the two is missing, or it is something else.
    """
    headers = [file for file in files if file.suffix.lower() == ".hdr"]
    others = [file for file in files if file.suffix.lower() != ".hdr"]
    names = ", ".join(display_name(file.name) for file in files)
    known = ", ".join(single)
    if len(files) == 1 and others and others[0].suffix.lower() in single:
        return _copy(others[0], folder, display_name(others[0].name))
    if len(headers) == 1 and len(others) == 1 and others[0].suffix.lower() not in single:
        stem = display_name(headers[0].stem)
        stem = Path(stem).stem if Path(stem).suffix.lower() in DATA_SUFFIXES else stem  # scene.img.hdr
        suffix = others[0].suffix.lower()
        _copy(others[0], folder, stem + (suffix if suffix in DATA_SUFFIXES else data_suffix))
        return _copy(headers[0], folder, f"{stem}.hdr")
    if len(headers) == 1 and not others:
        raise ValueError(
            f"{names} is only the header of an ENVI {what}. Choose two files at once: the header (.hdr), and the data "
            f"file beside it, which has the same name and ends in {data_suffix}, .dat, .bsq or nothing."
        )
    if len(others) == 1 and others[0].suffix.lower() in ("", *DATA_SUFFIXES):
        raise ValueError(
            f"{names} looks like the data file of an ENVI {what}, but its header is missing. Choose two files at "
            "once: this one, and the small text file of the same name that ends in .hdr."
        )
    if len(files) == 1:
        raise ValueError(f"{names} can't be read here. Give an ENVI {what} (two files, one of them .hdr), {known}.")
    raise ValueError(
        f"One {what} at a time: an ENVI pair (.hdr and its data file) or one file ({known}). Got {names}."
    )


def _own_upload(path: str, received: Path) -> Path:
    """The file, if a visitor has just sent it.

    Raises:
        ValueError: anything else, wherever it lies.
    """
    file = Path(path)
    resolved, root = file.resolve(), received.resolve()
    inside = (
        resolved.is_relative_to(root) and len(resolved.relative_to(root).parts) == 2
    )  # HASH/NAME: no visitor's folder
    if file.is_symlink() or not inside or not resolved.is_file():
        raise ValueError(f"{display_name(file.name)} has not arrived, or has been removed already. Send it again.")
    return resolved


def display_name(name: str) -> str:
    """A file's name without folders and without characters that mean something to anybody."""
    name = re.sub(r"[^\w.-]+", "_", name.replace("\\", "/").rsplit("/", 1)[-1]).lstrip(".-_")
    stem, dot, suffix = name.rpartition(".")
    return f"{stem[:_LONGEST]}.{suffix[:8]}" if dot and stem else name[:_LONGEST] or "file"


def _copy(file: Path, folder: Path, name: str) -> Path:
    """The copy in the visitor's folder; gradio's goes by itself (another visitor may have sent the same bytes)."""
    target = folder / name
    shutil.copyfile(file, target)
    return target


def check_shape(cube: Cube, limits: Limits) -> None:
    """Refuse a scene that is too large, before its pixels are read.

    Raises:
        ValueError: says the size, what is allowed, and what to do.
    """
    height, width, bands = cube.shape
    advice = "Cut out a part of it, or install hsunmix: `hsunmix unmix` takes scenes of any size."
    if height * width > limits.pixels:
        raise ValueError(
            f"The scene has {height} x {width} = {height * width} pixels; this page takes {limits.pixels}. {advice}"
        )
    if height * width * bands > limits.values:
        raise ValueError(
            f"The scene has {height * width} pixels x {bands} bands = {height * width * bands / 1e6:.1f} million "
            f"numbers; this page takes {limits.values / 1e6:.0f} million. {advice}"
        )


def _check_content(path: Path, limits: Limits) -> None:
    """Refuse a small file that unpacks to a large one, and files that point into other files.

    Damaged files are left to the reader, which says what is wrong with them.

    Raises:
        ValueError: either of them.
        ImportError: the library for this format is missing.
    """
    suffix = path.suffix.lower()
    size = 0
    if suffix == ".npz" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
    elif suffix == ".mat":
        size = _matlab_bytes(path)
    elif suffix in HDF_SUFFIXES:
        size = _hdf5_bytes(path, "hdf", f"{path.name}: netCDF-4 or HDF5")
    elif suffix in TIFF_SUFFIXES:
        size = _tiff_block_bytes(path)
    limit = limits.values * _BYTES
    if size > limit:
        raise ValueError(f"The file unpacks to {size / 2**20:.0f} MiB; this page takes {limit / 2**20:.0f} MiB.")


def _tiff_block_bytes(path: Path) -> int:
    """Bytes of one block of a TIFF in all bands: the least that is unpacked. `check_shape` sees to the whole.

    Raises:
        ValueError: something else under the name of a TIFF, such as a list of other files (VRT).
    """
    from hsunmix.data.optional import require

    with path.open("rb") as file:
        if file.read(4) not in _TIFF_BEGINS:
            raise ValueError(f"{path.name}: not a readable GeoTIFF; it doesn't begin like one")
    rasterio = require("rasterio", "geo", f"{path.name}: GeoTIFF")
    import warnings

    try:
        with warnings.catch_warnings():  # https://rasterio.readthedocs.io/en/stable/api/rasterio.errors.html
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(path, driver="GTiff") as image:
                return int(sum(height * width * _BYTES for height, width in image.block_shapes))
    except rasterio.errors.RasterioIOError:  # damaged: reading it again says so
        return 0


def _matlab_bytes(path: Path) -> int:
    """Bytes of the arrays that `read_mat` reads."""
    from hsunmix.data.matlab import OTHER_CLASSES, is_hdf5

    if is_hdf5(path):
        return _hdf5_bytes(path, "demo", "a MATLAB v7.3 file")
    from scipy.io import whosmat

    try:
        content: Any = whosmat(path)
    except Exception:  # scipy raises a dozen types on damaged files; reading it again says so
        return 0
    return sum(prod(shape) * _BYTES for _, shape, kind in content if kind not in OTHER_CLASSES)


def _hdf5_bytes(path: Path, extra: str, what: str) -> int:
    """Bytes of all arrays of an HDF5 file (of their chunks, where these are larger), at any depth.

    Raises:
        ValueError: a part of it lies in another file.
    """
    from hsunmix.data.optional import require

    h5py = require("h5py", extra, what)
    size = 0

    def look(name: str, value: Any) -> None:
        nonlocal size
        elsewhere = []
        if isinstance(value, h5py.Dataset):
            elsewhere = [name] if value.external or value.is_virtual else []
            size += max(value.size or 0, prod(value.chunks or (0,))) * value.dtype.itemsize
        elif isinstance(value, h5py.Group):
            elsewhere = [key for key in value if isinstance(value.get(key, getlink=True), h5py.ExternalLink)]
        if elsewhere:
            raise ValueError(f"{path.name}: {elsewhere[0]!r} points into another file; save plain arrays")

    try:
        with h5py.File(path, "r") as file:
            look("/", file)
            file.visititems(look)  # everything once, however often it is linked
    except (OSError, RuntimeError):  # damaged: reading it again says so
        return 0
    return size


@contextmanager
def plain_errors(folder: Path) -> Iterator[None]:
    """Errors of readers without the server's folders in them.

    Raises:
        ValueError: for every error that the visitor can do something about.
    """
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        text = str(error).replace(f"{folder.resolve()}/", "").replace(f"{folder}/", "")
        raise ValueError(text or type(error).__name__) from error
