"""Which files are let in: only those that gradio received, under names of our own, within limits that errors name."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsunmix.data.envi import DATA_SUFFIXES

from .session import Limits

if TYPE_CHECKING:
    from hsunmix.data import Cube

__all__ = ["check_shape", "display_name", "plain_errors", "receive_library", "receive_scene"]

SCENE_SUFFIXES = (".mat", ".npy", ".npz")
LIBRARY_SUFFIXES = (".csv", ".npz")
_BYTES = 8  # of one number, at most


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
    path = _receive(paths, received, folder, limits, SCENE_SUFFIXES, ".img", "scene")
    _check_arrays(path, limits)
    return path


def receive_library(paths: Sequence[str], received: Path, folder: Path, limits: Limits) -> Path:
    """As `receive_scene`, for a spectral library."""
    path = _receive(paths, received, folder, limits, LIBRARY_SUFFIXES, ".sli", "library")
    _check_arrays(path, limits)
    return path


def _receive(
    paths: Sequence[str],
    received: Path,
    folder: Path,
    limits: Limits,
    single: tuple[str, ...],
    data_suffix: str,
    what: str,
) -> Path:
    files = [_own_upload(path, received) for path in paths]
    size = sum(file.stat().st_size for file in files)
    if size > limits.upload:
        raise ValueError(f"The files have {size / 2**20:.0f} MiB; this page takes {limits.upload / 2**20:.0f} MiB.")
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
    return f"{stem[:60]}.{suffix[:8]}" if dot and stem else name[:60] or "file"


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


def _check_arrays(path: Path, limits: Limits) -> None:
    """Refuse a small file that unpacks to a large one, and an HDF5 file that points into other files.

    Damaged files are left to the reader, which says what is wrong with them.

    Raises:
        ValueError: either of them.
    """
    suffix = path.suffix.lower()
    if suffix == ".npz" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
    elif suffix == ".mat":
        size = _matlab_bytes(path)
    else:
        return
    limit = limits.values * _BYTES
    if size > limit:
        raise ValueError(f"The file unpacks to {size / 2**20:.0f} MiB; this page takes {limit / 2**20:.0f} MiB.")


def _matlab_bytes(path: Path) -> int:
    """Bytes of the arrays that `read_mat` reads."""
    from math import prod

    from hsunmix.data.matlab import OTHER_CLASSES, is_hdf5

    if is_hdf5(path):
        return _hdf5_bytes(path)
    from scipy.io import whosmat

    try:
        content: Any = whosmat(path)
    except Exception:  # scipy raises a dozen types on damaged files; reading it again says so
        return 0
    return sum(prod(shape) * _BYTES for _, shape, kind in content if kind not in OTHER_CLASSES)


def _hdf5_bytes(path: Path) -> int:
    from hsunmix.data.optional import require

    h5py = require("h5py", "demo", "a MATLAB v7.3 file")
    size = 0
    try:
        with h5py.File(path, "r") as file:
            for key in file:
                plain = isinstance(file.get(key, getlink=True), h5py.HardLink)
                value = file[key] if plain else None
                if not plain or (isinstance(value, h5py.Dataset) and (value.external or value.is_virtual)):
                    raise ValueError(f"{path.name}: {key!r} points into another file; save plain arrays")
                size += value.size * value.dtype.itemsize if isinstance(value, h5py.Dataset) else 0
    except OSError:  # damaged: reading it again says so
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
