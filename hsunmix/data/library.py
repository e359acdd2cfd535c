"""Spectral libraries: ENVI (.sli), .npz, .npy and .csv, resampled to a sensor's bands."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .envi import find_envi_pair, header_scale, header_wavelengths, ignored, open_envi
from .readers import load_npy, load_npz, naming
from .wavelengths import span, to_nanometers

__all__ = ["SpectralLibrary", "read_library", "write_library"]

_SPECTRA_KEYS = ("spectra", "endmembers", "library", "E")


@dataclass
class SpectralLibrary:
    """Named spectra over common bands.

    Args:
        spectra: (L, B) reflectance, converted to float32; missing values are NaN.
        names: L names; None = "spectrum 1", "spectrum 2", ...
        wavelengths: (B,) band centres in nm (micrometres are converted), or None.

    Raises:
        ValueError: not two-dimensional, no spectra, complex values, or counts that don't agree.
    """

    spectra: np.ndarray
    names: list[str] = field(default_factory=list)
    wavelengths: np.ndarray | None = None

    def __post_init__(self) -> None:
        spectra = np.asarray(self.spectra)
        if spectra.ndim != 2 or spectra.dtype.kind not in "fiu":
            raise ValueError(f"`spectra` must be real numbers (L, B), got {spectra.dtype} {spectra.shape}")
        if 0 in spectra.shape:
            raise ValueError(f"`spectra` holds no spectra: shape {spectra.shape}")
        self.spectra = spectra.astype(np.float32)
        names = [str(name) for name in self.names] if self.names is not None else []
        self.names = names or [f"spectrum {index + 1}" for index in range(len(spectra))]
        if len(self.names) != len(spectra):
            raise ValueError(f"`names` has {len(self.names)} entries for {len(spectra)} spectra")
        if self.wavelengths is not None:
            self.wavelengths, _ = to_nanometers(self.wavelengths)
            if len(self.wavelengths) != spectra.shape[1]:
                raise ValueError(f"wavelengths has {len(self.wavelengths)} values for {spectra.shape[1]} bands")

    def __repr__(self) -> str:
        return f"<SpectralLibrary: {len(self)} spectra, {self.num_bands} bands, {span(self.wavelengths)}>"

    def __len__(self) -> int:
        return len(self.spectra)

    @property
    def num_bands(self) -> int:
        """Number of bands B."""
        return self.spectra.shape[1]

    def subset(self, indices: Any) -> SpectralLibrary:
        """Some of the spectra.

        Args:
            indices: (n,) integers, in the order wanted, or an (L,) bool mask.

        Returns:
            A library of n spectra at the same bands.
        """
        chosen = np.arange(len(self))[np.asarray(indices)].ravel()
        return SpectralLibrary(self.spectra[chosen], [self.names[index] for index in chosen], self.wavelengths)

    def drop_invalid(self) -> SpectralLibrary:
        """Without the spectra that miss a band or are zero throughout.

        Returns:
            A library of the others, in their order.

        Raises:
            ValueError: nothing is left.
        """
        valid = np.isfinite(self.spectra).all(axis=1) & (self.spectra != 0).any(axis=1)
        if not valid.any():
            raise ValueError(
                "`library` has no spectrum that covers all bands; use one that spans the cube's wavelengths"
            )
        return self.subset(valid)

    def resample(self, wavelengths: Any, fwhm: Any = None) -> SpectralLibrary:
        """Spectra as a sensor with these bands would see them.

        Each target band is a Gaussian average over the spectrum, as wide as is needed to bring the library's own
        resolution (its sampling) to the sensor's; where the library is no finer, linear interpolation. Bands outside
        the library, inside one of its gaps, or touching missing values are NaN.

        Args:
            wavelengths: (T,) band centres in nm or micrometres, any order.
            fwhm: (T,) full widths at half maximum in the same unit; None = the distance between bands.

        Returns:
            Library with T bands in the order of `wavelengths`.

        Raises:
            ValueError: the library has no wavelengths, or none of the bands lies inside them.
        """
        target, widths = to_nanometers(wavelengths, None, fwhm)
        if self.wavelengths is None:
            raise ValueError(
                "the spectra have no wavelengths to resample them by; add them, or give spectra at the cube's bands"
            )
        if len(target) == self.num_bands and np.allclose(target, self.wavelengths, rtol=0, atol=0.01):
            return SpectralLibrary(self.spectra, self.names, target)
        weights, covered = _resampling_weights(self.wavelengths, target, widths)
        missing = ~np.isfinite(self.spectra)
        spectra = np.where(missing, 0, self.spectra) @ weights.T
        spectra[(missing @ weights.T > 1e-3) | ~covered] = np.nan
        if not covered.any():
            raise ValueError(
                f"the spectra span {self.wavelengths.min():.0f} to {self.wavelengths.max():.0f} nm; none of the bands "
                f"({target.min():.0f} to {target.max():.0f} nm) lies inside"
            )
        return SpectralLibrary(spectra, self.names, target)


def band_spacing(wavelengths: np.ndarray) -> np.ndarray:
    """Distance of each band to its neighbours (mean of both sides) in nm, for bands in any order."""
    order = np.argsort(wavelengths, kind="stable")
    spacing = np.empty(len(wavelengths))
    spacing[order] = np.gradient(wavelengths[order]) if len(wavelengths) > 1 else 10.0
    return spacing


def _resampling_weights(
    source: np.ndarray, target: np.ndarray, fwhm: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (T, S) whose rows sum to 1, and which of the T bands the source covers."""
    values, inverse = np.unique(source, return_inverse=True)  # detectors overlap: equal centres share their weight
    if len(values) == 1:
        raise ValueError("the spectra have a single wavelength and can't be resampled")
    steps = np.diff(values)
    own = np.interp(target, values, band_spacing(values))
    wanted = band_spacing(target) if fwhm is None else fwhm
    sigma = np.sqrt(np.maximum(wanted**2 - own**2, 0)) / 2.3548
    offsets = np.linspace(-3, 3, 49)
    nodes = np.clip(target[:, None] + sigma[:, None] * offsets, values[0], values[-1])
    share = np.exp(-0.5 * offsets**2) / np.exp(-0.5 * offsets**2).sum()
    left = np.clip(np.searchsorted(values, nodes, side="right") - 1, 0, len(values) - 2)
    fraction = (nodes - values[left]) / steps[left]
    weights = np.zeros((len(target), len(values)))
    rows = np.broadcast_to(np.arange(len(target))[:, None], left.shape)
    np.add.at(weights, (rows, left), share * (1 - fraction))
    np.add.at(weights, (rows, left + 1), share * fraction)
    inside = (target >= values[0] - steps[0] / 2) & (target <= values[-1] + steps[-1] / 2)
    gap = np.maximum(4 * np.median(steps), 40.0)
    bridged = (share * ((steps[left] > gap) & (fraction > 1e-6) & (fraction < 1 - 1e-6))).sum(axis=1) > 0.05
    return weights[:, inverse] / np.bincount(inverse)[inverse], inside & ~bridged


def read_library(path: str | os.PathLike[str], wavelengths: Any = None) -> SpectralLibrary:
    """Read spectra with their names and wavelengths.

    | file | what is read |
    |---|---|
    | ENVI library (`.hdr` or `.sli`) | spectra, names, wavelengths, scale factor; ignored values are NaN |
    | `.npz` | `spectra`, `endmembers` or `library` (L, B); `names`, `wavelengths` if there |
    | `.npy` | (L, B) |
    | `.csv` | wavelength column first, then one column per spectrum; first row = names |

    A `.csv` is separated by commas, tabs or semicolons; beside semicolons the decimal sign may be a comma.

    Args:
        path: the file.
        wavelengths: (B,) in nm or micrometres, instead of what the file says.

    Returns:
        The library, bands in file order.

    Raises:
        FileNotFoundError: the file or its partner is missing.
        ValueError: not a library, damaged, or without spectra. The message names the file.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    own = {".npz": _read_npz, ".npy": _read_npy, ".csv": _read_csv}.get(suffix)
    if own is not None and not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    library = (own or _read_envi)(path)
    library.names = [" ".join(name.split()) for name in library.names]  # some files align them in columns
    if wavelengths is None:
        return library
    with naming(path):
        return SpectralLibrary(library.spectra, library.names, wavelengths)


def _read_envi(path: Path) -> SpectralLibrary:
    if path.suffix.lower() not in ("", ".hdr", ".sli", ".img", ".dat"):
        raise ValueError(f"{path}: spectra are read from ENVI libraries (.sli, .hdr), .csv, .npy or .npz")
    image = open_envi(path)
    header = image.header
    if str(header.get("file type", "")).lower() != "envi spectral library":
        raise ValueError(
            f"{path}: is an image, not a spectral library ('file type = ENVI Spectral Library' is missing)"
        )
    with naming(find_envi_pair(path)[0]):
        raw = np.asarray(image.spectra)
        mask = ignored(raw, header)
        spectra = (raw / header_scale(header)).astype(np.float32)
        if mask is not None:
            spectra[mask] = np.nan
        centers, _ = header_wavelengths(header)
        return SpectralLibrary(spectra, list(image.names), centers)


def _read_npz(path: Path) -> SpectralLibrary:
    arrays = load_npz(path)
    key = next((key for key in _SPECTRA_KEYS if key in arrays), None)
    if key is None:
        raise ValueError(
            f'{path}: no spectra; name the array (L, B) "spectra" or "endmembers", found {sorted(arrays)}'
        )
    names = arrays.get("names")
    wavelengths = arrays.get("wavelengths")
    with naming(path):
        return SpectralLibrary(
            arrays[key],
            [] if names is None else [str(name) for name in np.ravel(names)],
            None if wavelengths is None else np.ravel(wavelengths),
        )


def _read_npy(path: Path) -> SpectralLibrary:
    spectra = np.asarray(load_npy(path)["cube"])
    with naming(path):
        return SpectralLibrary(spectra)


def _read_csv(path: Path) -> SpectralLibrary:
    content = path.read_bytes()
    with naming(path):
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:  # spreadsheets on western European systems
            text = content.decode("cp1252", errors="replace")
        last = text.rstrip().rpartition("\n")[2]  # numbers; names may hold any of these characters
        separator = next((mark for mark in ";\t" if mark in last), ",")
        rows = [row for row in csv.reader(io.StringIO(text, ""), delimiter=separator) if any(map(str.strip, row))]
        if not rows or len(rows[0]) < 2:
            raise ValueError(
                "a library in .csv has the wavelength in the first column and one column per spectrum, separated by "
                "commas, semicolons or tabs"
            )
        decimal = "," if separator == ";" else "."
        names = [] if _is_number(rows[0][1], decimal) else [cell.strip() for cell in rows.pop(0)[1:]]
        try:
            table = np.array([[_number(cell, decimal) if cell.strip() else np.nan for cell in row] for row in rows])
        except ValueError as error:
            raise ValueError(
                "rows of a library must be numbers and equally long (wavelength, spectrum, ...)"
            ) from error
        if table.ndim != 2 or len(table) == 0:
            raise ValueError("no spectra below the first row")
        return SpectralLibrary(table[:, 1:].T, names, table[:, 0])


def _number(cell: str, decimal: str) -> float:
    """A number whose decimal sign is this one or a point."""
    return float(cell.replace(decimal, "."))


def _is_number(cell: str, decimal: str) -> bool:
    try:
        _number(cell, decimal)
    except ValueError:
        return False
    return True


def write_library(
    path: str | os.PathLike[str],
    spectra: Any,
    names: Sequence[str] | None = None,
    wavelengths: Any = None,
) -> Path:
    """Write spectra as an ENVI spectral library, float32: `NAME.sli` and `NAME.hdr`.

    Args:
        path: `NAME`, `NAME.sli` or `NAME.hdr`.
        spectra: (L, B) reflectance; NaN where missing.
        names: L names; commas and braces, which an ENVI header can't hold, are replaced.
        wavelengths: (B,) in nm or micrometres, or None.

    Returns:
        The header's path.

    Raises:
        ValueError: shapes that don't agree.
    """
    from .writers import write_envi_pair

    library = SpectralLibrary(spectra, list(names or []), wavelengths)
    header: dict[str, Any] = {
        "file type": "ENVI Spectral Library",
        "samples": library.num_bands,
        "lines": len(library),
        "bands": 1,
        "interleave": "bsq",
        "spectra names": library.names,
    }
    if library.wavelengths is not None:
        header |= {"wavelength units": "Nanometers", "wavelength": library.wavelengths}
    return write_envi_pair(path, ".sli", [library.spectra], header)
