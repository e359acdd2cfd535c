"""Archetypal analysis by entropic descent (EDAA: Zouaoui et al., IEEE TIP 2023, doi 10.1109/TIP.2023.3301769).

Endmembers are convex combinations of pixels, pixels are convex combinations of endmembers. Many random starts run as
one batch, in the coordinates of the signal subspace.
"""

from __future__ import annotations

import torch

# steps in units of the inverse of the largest entry of the curvature, the smoothness constant on the simplex
_FIT_STEP = 2.0
_MIX_STEP = 4.0


def archetypal_analysis(
    points: torch.Tensor,
    num_endmembers: int,
    num_starts: int,
    generator: torch.Generator | None = None,
    outer: int = 60,
    inner: int = 5,
) -> torch.Tensor:
    """Archetypes of a point cloud, from many random starts.

    Args:
        points: (N, K) points, usually pixels scaled to unit norm.
        num_endmembers: number of archetypes R.
        num_starts: number of starts S.
        generator: source of randomness (on the CPU).
        outer: alternations between the two sets of weights.
        inner: entropic descent updates of each per alternation.

    Returns:
        (S, R, K) archetypes, in the dtype of `points`.
    """
    x = points.float()
    num_points = x.shape[0]
    noise = torch.randn(num_starts, num_endmembers, num_points, generator=generator).to(x.device)
    mix = torch.softmax(0.1 * noise, -1)  # the paper's B, [S, R, N]: endmembers = mix @ points
    fit = torch.full_like(mix, 1 / num_endmembers)  # the paper's A, [S, R, N]: points = fit^T @ endmembers
    largest = x.square().sum(1).max().clamp_min(1e-12)
    for _ in range(outer):
        archetypes = mix @ x  # [S, R, K]
        gram = archetypes @ archetypes.transpose(1, 2)
        correlation = archetypes @ x.T  # [S, R, N]
        step = _FIT_STEP / gram.amax((1, 2), keepdim=True).clamp_min(1e-12)
        for _ in range(inner):
            fit = _entropic_update(fit, step * (gram @ fit - correlation), 1)
        fit_gram = fit @ fit.transpose(1, 2)  # [S, R, R]
        target = fit @ x  # [S, R, K]
        step = _MIX_STEP / (fit_gram.amax((1, 2), keepdim=True) * largest)
        for _ in range(inner):
            mix = _entropic_update(mix, step * ((fit_gram @ (mix @ x) - target) @ x.T), 2)
    return (mix @ x).to(points.dtype)


def _entropic_update(weights: torch.Tensor, gradient: torch.Tensor, dim: int) -> torch.Tensor:
    """One multiplicative update, which keeps the weights on the simplex along `dim`."""
    return torch.softmax(weights.clamp_min(1e-30).log() - gradient, dim)
