"""Which axis of a cube holds the bands: told by the number of wavelengths, or judged by how few spectra explain it."""

from __future__ import annotations

import numpy as np

__all__ = ["advice", "check_band_axis", "spectral_axis", "why_bands_differ"]

_ADVICE = {0: ("come first", "(1, 2, 0)"), 1: ("are in the middle", "(0, 2, 1)")}
_MATERIALS = 8  # spectra that explain most scenes
_SHORTEST = 16  # shorter axes are explained by so many anyway
_LONGEST = 128  # samples of an axis: enough to tell
_PIXELS = 3000
_LEAST = 1e-4  # shares below are all alike: synthetic maps can be as simple as spectra
# In seven scenes the right way round the first axis leaves 36 to 335 times what the last one leaves, at 20 dB of noise
# 1.5 to 4.5 times; never less than the last. So only noise hides that a cube lies the wrong way.
_CLEARLY = 4.0


def check_band_axis(shape: tuple[int, ...], num_bands: int, what: str) -> None:
    """Refuse a cube whose last axis doesn't fit.

    Args:
        shape: of the cube.
        num_bands: that it should have.
        what: says so, for the message; in plural.

    Raises:
        ValueError: the last axis has another length.
    """
    if shape[2] == num_bands:
        return
    fitting = [axis for axis in _ADVICE if shape[axis] == num_bands]
    text = f"`cube` has the shape {shape}, so {shape[2]} bands, but there are {num_bands} {what}"
    if len(fitting) == 1:
        raise ValueError(f"{text}: {advice(fitting[0])}")
    raise ValueError(f"{text}; one per band is needed")


def advice(axis: int) -> str:
    """What to do where the bands may be along the first (0) or second (1) axis."""
    place, order = _ADVICE[axis]
    return f"if the bands of `cube` {place}, give it as (H, W, B), that is `cube.transpose{order}`"


def why_bands_differ(spectra: tuple[int, ...], spectra_known: bool, cube: tuple[int, ...], cube_known: bool) -> str:
    """What to do about spectra whose number of bands is not that of the cube, and that can't be resampled.

    Args:
        spectra: their shape (R, B).
        spectra_known: their wavelengths are known.
        cube: its shape (H, W, B).
        cube_known: its wavelengths are known.

    Returns:
        The advice.
    """
    fitting = [axis for axis in _ADVICE if cube[axis] == spectra[1]]
    if spectra[0] == cube[2]:
        return "give one spectrum in each row, (R, B)"
    if len(fitting) == 1 and not cube_known:
        return advice(fitting[0])
    if spectra_known:
        return "say which wavelengths the cube has (`wavelengths`), and the spectra are resampled to them"
    return "resample the spectra to the bands of the cube, or give them with their wavelengths as a spectral library"


def spectral_axis(data: np.ndarray) -> int:
    """The axis along which a cube looks like spectra.

    A scene holds few materials, so that a handful of spectra explains nearly all of its pixels; rows and columns of
    an image are not so simple.

    Args:
        data: (H, W, B), or with the bands elsewhere; not finite where missing.

    Returns:
        0 or 1 where that axis is far simpler than the last, else 2.
    """
    if min(data.shape) < _SHORTEST:
        return 2
    count = min(*data.shape, _LONGEST)
    shares = [max(_unexplained(data, axis, count), _LEAST) for axis in range(3)]
    best = int(np.argmin(shares))
    return best if shares[2] > _CLEARLY * shares[best] else 2


def _unexplained(data: np.ndarray, axis: int, count: int) -> float:
    """Share of the energy outside the span of a few vectors along one axis, of which `count` samples are looked at."""
    samples = np.linspace(0, data.shape[axis] - 1, count).round().astype(int)
    rows = np.moveaxis(data, axis, 2)
    step = max(1, int(np.sqrt(rows.shape[0] * rows.shape[1] / _PIXELS)))
    x = np.nan_to_num(rows[::step, ::step][:, :, samples].reshape(-1, count).astype(np.float64), posinf=0, neginf=0)
    energy = np.linalg.eigvalsh(x.T @ x)
    return float(energy[:-_MATERIALS].sum() / max(energy.sum(), 1e-30))
