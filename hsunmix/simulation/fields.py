"""Smooth and rough random fields over the image and random curves over the bands, filtered in the Fourier domain."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from .draws import Draws


def random_fields(
    num: int,
    height: int,
    width: int,
    draws: Draws,
    length: float,
    smoothness: float | None = None,
    stretch: float = 1.0,
) -> torch.Tensor:
    """Stationary Gaussian random fields, each with mean 0 and standard deviation 1 over the image.

    Args:
        num: number of fields.
        height: rows.
        width: columns.
        draws: source of randomness.
        length: correlation length in pixels; the standard deviation of the Gaussian filter when `smoothness` is None.
        smoothness: Matern smoothness nu (0.3 rough, 3 smooth); None is the Gaussian filter.
        stretch: ratio of the correlation lengths along and across a random direction.

    Returns:
        Fields (num, height, width).
    """
    pad = min(math.ceil(3 * length * max(stretch, 1.0)), max(height, width))  # opposite edges must not be neighbours
    rows, columns = (8 * math.ceil((size + pad) / 8) for size in (height, width))
    fy = torch.fft.fftfreq(rows, device=draws.device)[:, None]
    fx = torch.fft.rfftfreq(columns, device=draws.device)[None, :]
    if stretch != 1.0:
        angle = draws.number(0.0, math.pi)
        along = fx * math.cos(angle) + fy * math.sin(angle)
        across = fy * math.cos(angle) - fx * math.sin(angle)
        power = (along * stretch) ** 2 + across**2
    else:
        power = fx**2 + fy**2
    power = (2.0 * math.pi * length) ** 2 * power
    response = torch.exp(-0.5 * power) if smoothness is None else (1.0 + power) ** (-0.5 * (smoothness + 1.0))
    spectrum = torch.fft.rfft2(draws.normal(num, rows, columns)) * response
    fields = torch.fft.irfft2(spectrum, s=(rows, columns))[:, :height, :width]
    fields = fields - fields.mean((1, 2), keepdim=True)
    return fields / fields.square().mean((1, 2), keepdim=True).sqrt().clamp_min(1e-12)


def random_curves(num: int, positions: torch.Tensor, draws: Draws, length: float, terms: int = 24) -> torch.Tensor:
    """Smooth random curves with unit variance: random Fourier features of a Gaussian kernel (Rahimi and Recht, 2007).

    Args:
        num: number of curves.
        positions: (B,) where the curves are evaluated (wavelengths in nm, or any coordinate).
        draws: source of randomness.
        length: correlation length in the units of `positions`.
        terms: number of cosines per curve.

    Returns:
        Curves (num, B).
    """
    frequencies = draws.normal(terms, 1) / length
    phases = draws.uniform(0.0, 2.0 * math.pi, terms, 1)
    basis = torch.cos(frequencies * positions.to(draws.device, torch.float32) + phases)  # (terms, B)
    return draws.normal(num, terms) @ basis * math.sqrt(2.0 / terms)


def gaussian_blur(maps: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of maps (C, H, W) with a standard deviation of `sigma` pixels; edges are replicated."""
    radius = max(1, math.ceil(3.0 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=maps.device, dtype=maps.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(maps[:, None], (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))[:, 0]
