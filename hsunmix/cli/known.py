"""Spectra that the user gives, and the names that they lend to the result."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from .common import distinct, spectra_at_bands

if TYPE_CHECKING:
    from hsunmix.data import Cube, SpectralLibrary

SIMILAR = math.radians(10.0)  # spectra that are farther apart are different materials


def read_known_spectra(args: argparse.Namespace, cube: Cube) -> dict[str, SpectralLibrary]:
    """Spectra given on the command line at the cube's bands, by argument of the pipeline."""
    from hsunmix.data import read_library

    known = {}
    for argument in ("endmembers", "fixed_endmembers", "library"):
        path = getattr(args, argument)
        if path is None:
            continue
        option = f"--{argument.replace('_', '-')} {path}"
        known[argument] = spectra_at_bands(read_library(path), cube, option, drop_incomplete=argument == "library")
    return known


def name_endmembers(result: dict[str, Any], known: dict[str, SpectralLibrary]) -> list[str]:
    """Names of the given spectra, or of the library's nearest ones that are similar; else "endmember 1", ..."""
    count = len(result["endmembers"])
    names = [f"endmember {index + 1}" for index in range(count)]
    if "library" in known:
        nearest = nearest_spectra(result["coarse_endmembers"], known["library"], 1)
        names = [like if angle <= SIMILAR else name for name, [(like, angle)] in zip(names, nearest)]
    given = [name for key in ("fixed_endmembers", "endmembers") if key in known for name in known[key].names]
    names[: len(given)] = given[:count]
    return distinct(names)


def nearest_spectra(spectra: Any, library: SpectralLibrary, count: int) -> list[list[tuple[str, float]]]:
    """The library's spectra at the least angles, nearest first.

    Args:
        spectra: (R, B); masked bands are NaN.
        library: at the same bands.
        count: how many for each spectrum.

    Returns:
        For each of the R spectra names and angles in radians.
    """
    import numpy as np

    from hsunmix.evaluation import spectral_angles

    used = np.isfinite(spectra).all(axis=0)
    angles = spectral_angles(np.asarray(spectra)[:, used], library.spectra[:, used])  # [R, L]
    order = np.argsort(angles, axis=1, kind="stable")[:, :count]
    return [[(library.names[index], float(row[index])) for index in best] for row, best in zip(angles, order)]
