"""Per-band noise level, by regression between bands (HySime: Bioucas-Dias and Nascimento, IEEE TGRS 2008)."""

from __future__ import annotations

import torch

_BEYOND_NOISE = 1.1  # times the largest eigenvalue that noise alone has: it is known to a few percent
_NEIGHBOURS = 4  # bands on each side, where there are too few pixels to regress on all bands


def estimate_noise(pixels: torch.Tensor, floor: float = 1e-7) -> torch.Tensor:
    """Standard deviation of the noise in each band.

    Every band is predicted linearly from the other ones; what cannot be predicted is noise. With fewer than three
    pixels per band only neighbouring bands predict, and with a handful of pixels (down to a single one) the second
    difference along the spectrum takes the place of the regression.

    Args:
        pixels: (N, B) spectra without NaN.
        floor: lower bound, relative to the largest band rms, so that noise-free data stay invertible.

    Returns:
        (B,) standard deviations in the units of `pixels`, in the dtype of `pixels`.

    Raises:
        ValueError: if `pixels` is not a finite (N, B) tensor with at least two bands.
    """
    if pixels.ndim != 2 or pixels.shape[1] < 2:
        raise ValueError(f"`pixels` must be (N, B) with at least two bands, but has shape {tuple(pixels.shape)}.")
    y = pixels.double()
    if not torch.isfinite(y).all():
        raise ValueError("`pixels` holds NaN or infinite values: leave the masked pixels out.")
    num_pixels, num_bands = y.shape
    if num_pixels >= 3 * num_bands:
        variance = _regress_on_all(y)
    elif num_pixels >= 6 * _NEIGHBOURS:
        variance = _regress_on_neighbours(y)
    else:
        variance = _second_difference(y)
    lower = floor * y.square().mean(0).max().sqrt().clamp_min(1e-12)
    return variance.clamp_min(0).sqrt().clamp_min(lower).to(pixels.dtype)


def noise_share(residual: torch.Tensor, noise_std: torch.Tensor) -> float:
    """How much of a residual is noise.

    Args:
        residual: (N, B).
        noise_std: (B,).

    Returns:
        Ratio of the mean squares, 1 at most.
    """
    return float((noise_std.square().mean() / residual.square().mean().clamp_min(1e-30)).clamp_max(1))


def explained_share(before: torch.Tensor, after: torch.Tensor, noise_std: torch.Tensor) -> float:
    """How much a step explains of what the pixels had in common in their residual.

    Noise may be nearly all that a model leaves of single pixels, while what many have in common shows that it is
    wrong: eigenvalues of the covariance above the largest that noise has (Marchenko and Pastur, 1967). Noise that is
    underestimated by more than 5 % counts as in common, too.

    Args:
        before: (N, B) residual before the step.
        after: (N, B) residual after it.
        noise_std: (B,) standard deviation of the noise.

    Returns:
        0 to 1; 1 where they had nothing in common.
    """
    had, left = (_common_energy(residual, noise_std) for residual in (before, after))
    return 1.0 if had == 0 else min(max(1 - left / had, 0.0), 1.0)


def _common_energy(residual: torch.Tensor, noise_std: torch.Tensor) -> float:
    """Energy beyond noise of what pixels have in common, in units of the variance of the noise."""
    count, bands = residual.shape
    whitened = residual.double() / noise_std.double()
    values = torch.linalg.eigvalsh(whitened.T @ whitened / count)
    common = values > _BEYOND_NOISE * (1 + (bands / count) ** 0.5) ** 2
    return float((values[common] - 1).sum())


def _regress_on_all(y: torch.Tensor) -> torch.Tensor:
    """The residual variance of one band given all others is 1 / (C^-1)_ii, with C the correlation matrix."""
    scale = y.square().mean(0).sqrt().clamp_min(1e-12)
    z = y / scale
    correlation = z.T @ z / z.shape[0]
    eye = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    residual = 1 / torch.linalg.inv(correlation + 1e-12 * eye).diagonal()
    return residual * scale.square() * z.shape[0] / (z.shape[0] - z.shape[1] + 1)


def _regress_on_neighbours(y: torch.Tensor) -> torch.Tensor:
    """Least squares of every band on its nearest bands, all bands in one batch."""
    num_pixels, num_bands = y.shape
    width = min(2 * _NEIGHBOURS + 1, num_bands)
    start = (torch.arange(num_bands, device=y.device) - width // 2).clamp(0, num_bands - width)
    window = start[:, None] + torch.arange(width, device=y.device)  # [B, width]
    target = torch.arange(num_bands, device=y.device)
    others = window[window != target[:, None]].reshape(num_bands, width - 1)
    x = y.T[others].transpose(1, 2)  # [B, N, width - 1]
    gram = x.transpose(1, 2) @ x
    ridge = 1e-10 * gram.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-30)
    gram = gram + ridge[:, None, None] * torch.eye(width - 1, dtype=y.dtype, device=y.device)
    weights = torch.linalg.solve(gram, x.transpose(1, 2) @ y.T[:, :, None])
    residual = y.T - (x @ weights).squeeze(-1)
    return residual.square().sum(1) / (num_pixels - width + 1)


def _second_difference(y: torch.Tensor) -> torch.Tensor:
    """White noise from the second difference along the spectrum, of variance 6 sigma^2; one value for all bands."""
    difference = y.diff(n=min(2, y.shape[1] - 1), dim=1)
    gain = 6.0 if y.shape[1] > 2 else 2.0
    spread = difference.abs().median() / 0.6745
    return (spread.square() / gain).expand(y.shape[1])
