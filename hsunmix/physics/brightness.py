"""Does the brightness of a scene vary, and in which scale are abundances then counted?

Where it does not vary, freeing it costs accuracy; where it does, fixing it ruins the abundances. The scene tells: with
constant brightness there are weights u > 0 with `b u = 1` in every pixel, b being the unconstrained coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .consistency import normal_equations

BRIGHTNESS_THRESHOLD = 0.07  # relative variation above which the brightness counts as free
_LEAST_WIDTH = 0.01  # the prior on a constant brightness is never narrower than this


@dataclass
class BrightnessModel:
    """How the brightness enters the unmixing.

    Attributes:
        mode: "free" or "fixed".
        variation: relative standard deviation of the brightness, noise removed.
        precision: inverse variance of the prior around brightness 1; 0 when free.
    """

    mode: str
    variation: float
    precision: float


def brightness_fit(
    pixels: torch.Tensor, endmembers: torch.Tensor, noise_std: torch.Tensor | float
) -> tuple[torch.Tensor, float]:
    """Weights u for which `b u` is as nearly 1 as it can be, and how far from 1 the brightness then varies.

    Least squares with the moments of the unconstrained coefficients b corrected for their noise covariance (errors in
    variables; Fuller, 1987), so that the answer does not depend on the noise level. Divided by `u_r`, endmember r has
    the scale in which abundances sum to one.

    Args:
        pixels: (N, B) spectra.
        endmembers: (R, B) spectra, in any scale.
        noise_std: (B,) standard deviation of the noise.

    Returns:
        `(u, variation)`: (R,) float64, and the relative standard deviation of the brightness, noise removed. With
        hardly more pixels than endmembers nothing can be said: the variation is 0.
    """
    gram, rhs = normal_equations(pixels, endmembers, noise_std)
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    covariance = torch.linalg.inv(gram + 1e-10 * gram.diagonal().mean() * eye)
    b = rhs @ covariance  # [N, R], unconstrained
    count, rank = b.shape
    if count <= 2 * rank:
        return torch.ones_like(b[0]), 0.0
    moments = b.T @ b / count - covariance
    values, vectors = torch.linalg.eigh(moments)
    values = values.clamp_min(1e-6 * values.max())  # directions that are all noise say nothing
    u = vectors @ ((vectors.T @ b.mean(0)) / values)
    variance = (b @ u - 1).square().mean() - u @ covariance @ u
    return u, float(variance.clamp_min(0).sqrt())


def brightness_model(
    pixels: torch.Tensor, endmembers: torch.Tensor, noise_std: torch.Tensor, mode: str = "auto"
) -> BrightnessModel:
    """Choose the brightness prior of a scene.

    Args:
        pixels: (N, B) spectra.
        endmembers: (R, B) spectra.
        noise_std: (B,) standard deviation of the noise.
        mode: "free", "fixed", or "auto", which decides by `brightness_fit`.

    Returns:
        The `BrightnessModel`.

    Raises:
        ValueError: for any other mode.
    """
    if mode not in ("auto", "free", "fixed"):
        raise ValueError(f'`brightness` must be "auto", "free" or "fixed", but is {mode!r}.')
    _, variation = brightness_fit(pixels, endmembers, noise_std)
    if mode == "free" or (mode == "auto" and variation > BRIGHTNESS_THRESHOLD):
        return BrightnessModel("free", variation, 0.0)
    width = _LEAST_WIDTH if mode == "fixed" else max(variation, _LEAST_WIDTH)
    return BrightnessModel("fixed", variation, width**-2)
