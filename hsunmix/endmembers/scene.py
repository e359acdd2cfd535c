"""The pixels of a scene as the extractors see them: coordinates in the signal subspace, smoothed, with known noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .subspace import SignalSubspace, box_mean, effective_noise, fit_subspace, wiener_smooth

_EXTRA_DIMENSIONS = 3  # kept beyond R: dark endmembers live there, and the first discarded one measures model error
_SMOOTHED_NOISE = 0.5  # share of the noise variance that adaptive smoothing leaves, on average


@dataclass(frozen=True)
class ScenePoints:
    """N usable pixels of a scene in K >= R whitened coordinates; noise has about unit variance in each.

    Attributes:
        subspace: between coordinates and spectra.
        raw: (N, K) coordinates.
        smooth: (N, K) coordinates after adaptive smoothing.
        norm: (N,) Euclidean norm of `smooth`.
        model_error: rms per coordinate, relative to the norm of a pixel, of what R endmembers cannot explain.
        num_endmembers: R.
    """

    subspace: SignalSubspace
    raw: torch.Tensor
    smooth: torch.Tensor
    norm: torch.Tensor
    model_error: float
    num_endmembers: int

    @property
    def unit(self) -> torch.Tensor:
        """(N, K) smoothed coordinates of unit norm: brightness removed."""
        return self.smooth / self.norm[:, None]

    @property
    def noise_var(self) -> torch.Tensor:
        """(N,) variance of the noise in every coordinate of `unit`."""
        return _SMOOTHED_NOISE / self.norm.square()


def prepare_scene(
    cube: torch.Tensor, num_endmembers: int, noise_std: torch.Tensor, valid: torch.Tensor
) -> ScenePoints:
    """Project a cube on its signal subspace, smooth it there, and leave out pixels that are all noise.

    Args:
        cube: (H, W, B) without NaN.
        num_endmembers: R.
        noise_std: (B,) standard deviation of the noise.
        valid: (H, W) bool.

    Returns:
        The points.
    """
    pixels = cube[valid]
    num_pixels, num_bands = pixels.shape
    noise = effective_noise(pixels, noise_std)
    dim = min(num_endmembers + _EXTRA_DIMENSIONS, num_bands, max(num_pixels, num_endmembers))
    local_mean = box_mean(cube, valid, 3)[valid]
    subspace = fit_subspace(local_mean, noise, dim, balance=True)
    raw = subspace.project(torch.where(valid[..., None], cube, 0))
    smooth = wiener_smooth(raw, valid)
    raw, smooth = raw[valid], smooth[valid]
    norm = smooth.norm(dim=1)
    usable = norm > 3 * dim**0.5
    if usable.sum() < max(2 * num_endmembers, 0.5 * num_pixels):  # hardly any signal: take what there is
        usable = norm >= norm.quantile(0.1) if num_pixels > 10 * num_endmembers else norm >= 0
    raw, smooth, norm = raw[usable], smooth[usable], norm[usable].clamp_min(1e-6)
    model_error = _model_error(smooth / norm[:, None], _SMOOTHED_NOISE / norm.square(), num_endmembers)
    return ScenePoints(subspace, raw, smooth, norm, model_error, num_endmembers)


def _model_error(unit: torch.Tensor, noise_var: torch.Tensor, num_endmembers: int) -> float:
    """Spread along the first direction that R endmembers leave unexplained, noise removed."""
    discarded = unit[:, num_endmembers:]
    if discarded.shape[1] == 0:
        return 0.0
    variance = torch.linalg.eigvalsh(discarded.T @ discarded / len(discarded))[-1]
    return float((variance - noise_var.mean()).clamp_min(0).sqrt())
