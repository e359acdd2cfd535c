"""Sensor noise of simulated scenes: white, band-dependent, correlated between bands, stripes; dead pixels."""

from __future__ import annotations

import torch

from .draws import Draws
from .fields import random_curves

NOISE_KINDS = ("white", "band", "correlated", "stripes")
"""Kinds of noise known to `random_noise`."""


def random_noise(
    height: int, width: int, num_bands: int, power: float | torch.Tensor, draws: Draws, kind: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Zero-mean noise of a given mean power.

    Args:
        height: rows.
        width: columns.
        num_bands: B.
        power: mean of the squared noise over all pixels and bands, reflectance squared.
        draws: source of randomness.
        kind: "white" (equal in all bands, independent); "band" (level differs between bands); "correlated" (part of it
            shared by neighbouring bands); "stripes" (part of it constant along the columns of a band).

    Returns:
        Noise (N, B), N = height * width, and its true standard deviation per band (B,).

    Raises:
        ValueError: for an unknown kind.
    """
    if kind not in NOISE_KINDS:
        raise ValueError(f"`noise` must be one of {', '.join(NOISE_KINDS)}, got {kind!r}.")
    std = torch.as_tensor(power, device=draws.device, dtype=torch.float32).sqrt() * torch.ones(
        num_bands, device=draws.device
    )
    noise = draws.normal(height * width, num_bands)
    if kind == "white":
        return noise.mul_(std), std
    std = std * _band_profile(num_bands, draws)
    if kind == "correlated":
        noise = noise @ _band_correlation(num_bands, draws)
    elif kind == "stripes":
        share = draws.number(0.05, 0.5)  # of the noise power; in some of the columns
        striped = (draws.uniform(0.0, 1.0, width, 1) < draws.log_number(0.05, 1.0)).float()
        striped[draws.integer(0, width - 1)] = 1.0
        offsets = striped * draws.normal(width, num_bands)
        offsets = offsets / offsets.square().mean(0).sqrt().clamp_min(1e-6)
        noise = noise.mul_((1.0 - share) ** 0.5).view(height, width, num_bands).add_(offsets * share**0.5)
        noise = noise.view(-1, num_bands)
    return noise.mul_(std), std


def _band_profile(num_bands: int, draws: Draws) -> torch.Tensor:
    """Relative noise level per band (B,), mean square 1: smooth, higher at the ends, a few noisy bands."""
    position = torch.linspace(0.0, 1.0, num_bands, device=draws.device)
    log_level = draws.number(0.1, 0.6) * random_curves(1, position, draws, 0.2)[0]
    if draws.chance(0.5):
        log_level = log_level + draws.number(0.3, 1.2) * (2.0 * position - 1.0).abs() ** 6
    if draws.chance(0.4):
        log_level = log_level + 1.0 * (draws.uniform(0.0, 1.0, num_bands) < 0.03)
    level = log_level.exp()
    return level / level.square().mean().sqrt()


def _band_correlation(num_bands: int, draws: Draws) -> torch.Tensor:
    """Matrix M (B, B) with unit columns: white noise @ M has unit variance and is correlated between bands."""
    band = torch.arange(num_bands, device=draws.device, dtype=torch.float32)
    smooth = torch.exp(-0.5 * ((band[:, None] - band) / draws.log_number(1.0, 8.0)) ** 2)
    matrix = torch.eye(num_bands, device=draws.device) + draws.number(0.2, 1.0) * smooth
    return matrix / matrix.norm(dim=0, keepdim=True)


def kill_pixels(cube: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Set up to 0.1 % of the values of (N, B) to zero, as detector elements that do not respond do; in place."""
    count = max(1, int(cube.numel() * draws.log_number(1e-5, 1e-3)))
    cube.view(-1)[draws.integers(cube.numel(), count)] = 0.0
    return cube
