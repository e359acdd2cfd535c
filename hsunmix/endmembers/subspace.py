"""The signal subspace of a scene, and adaptive smoothing of the pixels in it.

Whitening by the noise and an eigen-decomposition of the second moments, as in HySime (Bioucas-Dias and Nascimento,
IEEE TGRS 2008); smoothing by the local Wiener filter (Lee, IEEE TPAMI 1980).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class SignalSubspace:
    """A K-dimensional linear subspace of spectra, orthonormal after dividing every band by its noise level.

    Attributes:
        basis: (K, B) orthonormal rows in whitened coordinates, float64.
        noise_std: (B,) scale of every band, float64.
    """

    basis: torch.Tensor
    noise_std: torch.Tensor

    def project(self, pixels: torch.Tensor) -> torch.Tensor:
        """(..., B) spectra -> (..., K) coordinates, float64; white noise of the given level becomes unit noise."""
        return (pixels @ (self.basis / self.noise_std).T.to(pixels.dtype)).double()

    def lift(self, coordinates: torch.Tensor) -> torch.Tensor:
        """(..., K) coordinates -> (..., B) spectra, float64."""
        return coordinates @ (self.basis * self.noise_std)


def effective_noise(pixels: torch.Tensor, noise_std: torch.Tensor, floor: float = 0.01) -> torch.Tensor:
    """Noise level with a model error added, so that no band of a nearly noise-free cube gets an absurd weight.

    Args:
        pixels: (N, B) spectra.
        noise_std: (B,) standard deviation of the noise.
        floor: model error relative to the rms of the cube.

    Returns:
        (B,) float64.
    """
    rms = pixels.double().square().mean().sqrt().clamp_min(1e-12)
    return (noise_std.double().square() + (floor * rms).square()).sqrt()


def fit_subspace(pixels: torch.Tensor, noise_std: torch.Tensor, dim: int, balance: bool = False) -> SignalSubspace:
    """The `dim` leading directions of the whitened pixels.

    Args:
        pixels: (N, B) spectra.
        noise_std: (B,) standard deviation of the noise.
        dim: dimension K of the subspace.
        balance: weigh every pixel by its inverse power, so that dark materials count as much as bright ones.

    Returns:
        The subspace.
    """
    white = pixels.double() / noise_std
    if balance:
        power = white.square().sum(1, keepdim=True)
        white = white / power.clamp_min(power.mean() * 1e-4).sqrt()
    _, vectors = torch.linalg.eigh(white.T @ white)  # ascending
    basis = vectors[:, -dim:].flip(1).T
    sign = torch.where(basis.sum(1, keepdim=True) < 0, -1.0, 1.0)  # eigenvectors have no sign of their own
    return SignalSubspace((basis * sign).contiguous(), noise_std.double())


def box_mean(maps: torch.Tensor, valid: torch.Tensor, size: int) -> torch.Tensor:
    """Mean over the valid pixels of a `size` x `size` window around every pixel.

    Args:
        maps: (H, W, K).
        valid: (H, W) bool.
        size: odd window size.

    Returns:
        (H, W, K).
    """
    weight = valid.to(maps.dtype)[None, None]
    stack = (maps.permute(2, 0, 1) * weight[0])[:, None]  # [K, 1, H, W]
    total = F.avg_pool2d(stack, size, 1, size // 2, divisor_override=1)
    count = F.avg_pool2d(weight, size, 1, size // 2, divisor_override=1)
    return (total / count.clamp_min(1))[:, 0].permute(1, 2, 0)


def wiener_smooth(
    maps: torch.Tensor, valid: torch.Tensor, size: int = 3, passes: int = 2
) -> tuple[torch.Tensor, torch.Tensor]:
    """Local Wiener filter (Lee, IEEE TPAMI 1980): smooths where the local variance is noise, and nowhere else.

    Args:
        maps: (H, W, K) coordinates with unit noise variance.
        valid: (H, W) bool.
        size: odd window size.
        passes: how often.

    Returns:
        `(smoothed, noise_var)`, (H, W, K) each: the noise variance that the filter leaves.
    """
    count = size * size
    noise_var = torch.ones_like(maps)
    for k in range(passes):
        mean = box_mean(maps, valid, size)
        variance = (box_mean(maps.square(), valid, size) - mean.square()).clamp_min(0) * count / (count - 1)
        gain = (1 - 1 / variance.clamp_min(1e-30)).clamp(0, 1)
        left = (gain + (1 - gain) / count).square() + (count - 1) * ((1 - gain) / count).square()
        # a later pass removes less: its neighbours share noise already (two box filters leave 0.055, not 0.11^2)
        noise_var = noise_var * (left if k == 0 else left ** (1 / 3))
        maps = torch.where(valid[..., None], mean + gain * (maps - mean), maps)
    return maps, noise_var
