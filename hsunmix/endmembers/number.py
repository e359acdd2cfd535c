"""How many endmembers: the dimension of the signal subspace (HySime: Bioucas-Dias and Nascimento, IEEE TGRS 2008)."""

from __future__ import annotations

import torch

from ..physics import estimate_noise
from .subspace import effective_noise


def estimate_num_endmembers(
    pixels: torch.Tensor, noise_std: torch.Tensor | None = None, maximum: int = 12, model_error: float = 0.01
) -> int:
    """Dimension of the signal subspace by minimum mean squared error (HySime).

    A direction counts where the signal in it outweighs the noise that it lets in. Model error of the given relative
    size counts as noise, or else every real scene would have dozens of endmembers.

    Args:
        pixels: (N, B) spectra.
        noise_std: (B,) standard deviation of the noise; estimated when `None`.
        maximum: largest number returned.
        model_error: relative to the rms of the pixels.

    Returns:
        Number of endmembers, at least 2.

    Raises:
        ValueError: if `pixels` is not (N, B) with at least two of each.
    """
    if pixels.ndim != 2 or min(pixels.shape) < 2:
        raise ValueError(f"`pixels` must be (N, B) with at least 2 of each, but has shape {tuple(pixels.shape)}.")
    if noise_std is None:
        noise_std = estimate_noise(pixels)
    white = pixels.double() / effective_noise(pixels, noise_std, model_error)
    values = torch.linalg.eigvalsh(white.T @ white / len(white))
    # signal power in a direction is value - 1, the noise let in is 1
    count = int((values > 2).sum())
    return max(2, min(count, maximum, *pixels.shape))
