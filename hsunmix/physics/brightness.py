"""Does the brightness of a scene vary, and in which scale are abundances then counted?

Where it does not vary, freeing it costs accuracy; where it does, fixing it ruins the abundances. The scene tells: with
constant brightness there are weights u > 0 with `b u = 1` in every pixel, b being the unconstrained coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .consistency import normal_equations

_THRESHOLD = 0.07  # relative variation above which the brightness counts as free
_LEAST_WIDTH = 0.01  # the prior on a constant brightness is never narrower than this


@dataclass
class BrightnessModel:
    """How the brightness enters the unmixing.

    Attributes:
        mode: "free" or "fixed".
        variation: relative standard deviation of the brightness, noise removed; NaN if not estimated.
        precision: inverse variance of the prior around brightness 1; 0 when free.
    """

    mode: str
    variation: float
    precision: float


def brightness_variation(pixels: torch.Tensor, endmembers: torch.Tensor, noise_std: torch.Tensor) -> float:
    """Relative standard deviation of the brightness, the part that the noise explains removed.

    Least squares for u in `b u = 1`, with the moments of the coefficients b corrected for their noise covariance
    (errors in variables; Fuller, 1987).

    Args:
        pixels: (N, B) spectra.
        endmembers: (R, B) spectra, in any scale.
        noise_std: (B,) standard deviation of the noise.

    Returns:
        Standard deviation of `b u` around 1; infinity if there is no positive u.
    """
    gram, rhs = normal_equations(pixels, endmembers, noise_std)
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    covariance = torch.linalg.inv(gram + 1e-10 * gram.diagonal().mean() * eye)
    b = rhs @ covariance  # [N, R], unconstrained
    count, rank = b.shape
    if count <= 2 * rank:
        return 0.0
    mean = b.mean(0)
    moments = b.T @ b / count - covariance
    values, vectors = torch.linalg.eigh(moments)
    values = values.clamp_min(1e-6 * values.max())  # directions that are all noise say nothing
    u = vectors @ ((vectors.T @ mean) / values)
    fit = b @ u
    variance = (fit - 1).square().mean() - u @ covariance @ u
    return float(variance.clamp_min(0).sqrt())


def brightness_model(
    pixels: torch.Tensor, endmembers: torch.Tensor, noise_std: torch.Tensor, mode: str = "auto"
) -> BrightnessModel:
    """Choose the brightness prior of a scene.

    Args:
        pixels: (N, B) spectra.
        endmembers: (R, B) spectra.
        noise_std: (B,) standard deviation of the noise.
        mode: "free", "fixed", or "auto", which decides by `brightness_variation`.

    Returns:
        The `BrightnessModel`.

    Raises:
        ValueError: for any other mode.
    """
    if mode not in ("auto", "free", "fixed"):
        raise ValueError(f'`brightness` must be "auto", "free" or "fixed", but is {mode!r}.')
    variation = brightness_variation(pixels, endmembers, noise_std)
    if mode == "free" or (mode == "auto" and variation > _THRESHOLD):
        return BrightnessModel("free", variation, 0.0)
    width = _LEAST_WIDTH if mode == "fixed" else max(variation, _LEAST_WIDTH)
    return BrightnessModel("fixed", variation, width**-2)
