"""All pictures of one result in a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data import atomic_path
from .composite import plot_composite, plot_preview
from .maps import plot_abundances, plot_brightness, plot_residual
from .spectra import has_common_maximum, plot_endmembers

__all__ = ["save_figure", "save_figures"]


def save_figures(
    folder: str | os.PathLike[str],
    abundances: np.ndarray,
    endmembers: np.ndarray,
    wavelengths: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    *,
    residual: np.ndarray | None = None,
    brightness: np.ndarray | None = None,
    cube: np.ndarray | None = None,
    preview: np.ndarray | None = None,
    preview_bands: str = "",
    band_mask: np.ndarray | None = None,
    abundance_uncertainty: np.ndarray | None = None,
    endmember_uncertainty: np.ndarray | None = None,
    coarse_abundances: np.ndarray | None = None,
    coarse_endmembers: np.ndarray | None = None,
    reference_abundances: np.ndarray | None = None,
    reference_endmembers: np.ndarray | None = None,
    title: str = "",
) -> list[Path]:
    """Write `abundances.png`, `endmembers.png` and, where given, `residual.png`, `brightness.png`, `composite.png`.

    Args:
        folder: made if it doesn't exist.
        abundances: (H, W, R).
        endmembers: (R, B).
        wavelengths: (B,) in nm, or None.
        names: R names.
        residual: (H, W) reconstruction error.
        brightness: (H, W); drawn where it was free, which is where all endmembers have the same maximum.
        cube: (H, W, B) for the colour composite.
        preview: (h, w, 3) colour composite, from `scene_preview`, where the cube is too large for `cube`.
        preview_bands: which bands it shows.
        band_mask: (B,) bool, True = good band; bad bands are left out of composite and spectra.
        abundance_uncertainty: (H, W, R) standard deviations.
        endmember_uncertainty: (R, B) standard deviations.
        coarse_abundances: (H, W, R).
        coarse_endmembers: (R, B).
        reference_abundances: (H, W, R).
        reference_endmembers: (R, B).
        title: of the composite.

    Returns:
        The files written.
    """
    folder = Path(folder)
    spectra = np.array(endmembers, dtype=np.float64)
    if band_mask is not None:
        spectra[:, ~np.asarray(band_mask)] = np.nan
    figures = {
        "abundances.png": plot_abundances(
            abundances, names, abundance_uncertainty, coarse_abundances, reference_abundances
        ),
        "endmembers.png": plot_endmembers(
            spectra, wavelengths, names, endmember_uncertainty, coarse_endmembers, reference_endmembers
        ),
    }
    if residual is not None:
        figures["residual.png"] = plot_residual(residual)
    if brightness is not None and has_common_maximum(spectra):
        figures["brightness.png"] = plot_brightness(brightness)
    if cube is not None:
        figures["composite.png"] = plot_composite(cube, wavelengths, band_mask, title)
    elif preview is not None:
        figures["composite.png"] = plot_preview(preview, preview_bands, title)
    return [save_figure(figure, folder / name) for name, figure in figures.items()]


def save_figure(figure: Any, path: str | os.PathLike[str], dpi: int = 150) -> Path:
    """Write one figure as a picture of the type that the suffix says."""
    path = Path(path)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi)
    return path
