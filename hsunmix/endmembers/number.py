"""How many endmembers: directions of the signal subspace that stand out of noise and of model error.

Whitening and the noise estimate as in HySime (Bioucas-Dias and Nascimento, IEEE TGRS 2008); edge of the noise after
Marchenko and Pastur (1967).
"""

from __future__ import annotations

import torch

from ..physics import estimate_noise
from .subspace import effective_noise

_MODEL_ERROR = 0.03  # relative to the rms of the pixels; counts as noise
_STANDS_OUT = 1.65  # singular value over the next: noise and endmember variability fall more slowly


def estimate_num_endmembers(pixels: torch.Tensor, noise_std: torch.Tensor | None = None, maximum: int = 12) -> int:
    """Number of endmembers of a scene.

    Real scenes have signal in dozens of directions, since materials vary: counting all that rise above the noise, as
    HySime does, finds ten or more endmembers where a map has four. Here a direction, and all before it, count when its
    singular value (of unit-norm pixels, whitened) is above the edge of the noise and well above the next one.

    Args:
        pixels: (N, B) spectra.
        noise_std: (B,) standard deviation of the noise; estimated when `None`.
        maximum: largest number returned.

    Returns:
        Number of endmembers, at least 2.

    Raises:
        ValueError: if `pixels` is not (N, B) with at least two of each.
    """
    if pixels.ndim != 2 or min(pixels.shape) < 2:
        raise ValueError(f"`pixels` must be (N, B) with at least 2 of each, but has shape {tuple(pixels.shape)}.")
    if noise_std is None:
        noise_std = estimate_noise(pixels)
    num_pixels, num_bands = pixels.shape
    white = pixels.double() / effective_noise(pixels, noise_std, _MODEL_ERROR)
    norm = white.norm(dim=1, keepdim=True)
    unit = white / norm.clamp_min(1e-2 * norm.mean() + 1e-30)
    power = torch.linalg.eigvalsh(unit.T @ unit / num_pixels).flip(0).clamp_min(1e-30)
    edge = norm.clamp_min(1e-30).reciprocal().square().mean() * (1 + (num_bands / num_pixels) ** 0.5) ** 2
    limit = min(maximum, num_pixels, num_bands - 1)
    stands_out = (power[:-1] > _STANDS_OUT**2 * power[1:]) & (power[:-1] > edge)
    counts = stands_out[:limit].nonzero()[:, 0] + 1
    return max(2, int(counts.max())) if len(counts) else 2
