"""Archetypal analysis by entropic descent (EDAA: Zouaoui et al., IEEE TIP 2023, doi 10.1109/TIP.2023.3301769).

Endmembers are convex combinations of pixels, pixels are convex combinations of endmembers. Many random starts run as
one batch, in the coordinates of the signal subspace.
"""

from __future__ import annotations

import torch

FAC=1
FACA=1


def archetypal_analysis(
    fit_pixels: torch.Tensor,
    pure_pixels: torch.Tensor,
    num_endmembers: int,
    num_starts: int,
    generator: torch.Generator | None = None,
    outer: int = 60,
    inner: int = 5,
) -> torch.Tensor:
    """Archetypes of a point cloud, from many random starts.

    Args:
        fit_pixels: (N, K) points to be explained.
        pure_pixels: (M, K) points that the archetypes are made of.
        num_endmembers: number of archetypes R.
        num_starts: number of starts S.
        generator: source of randomness (on the CPU).
        outer: alternations between the two sets of weights.
        inner: entropic descent updates of each per alternation.

    Returns:
        (S, R, M) weights on the simplex; archetypes are `weights @ pure_pixels`.
    """
    x, p = fit_pixels.float(), pure_pixels.float()
    shape = (num_starts, num_endmembers, p.shape[0])
    noise = torch.randn(shape, generator=generator).to(x.device)
    mix = torch.softmax(0.1 * noise, -1)  # B in the paper, [S, R, M]
    fit = torch.full((num_starts, num_endmembers, x.shape[0]), 1 / num_endmembers, device=x.device)  # A, [S, R, N]
    p_norm = p.square().sum(1).max()
    for _ in range(outer):
        archetypes = mix @ p  # [S, R, K]
        gram = archetypes @ archetypes.transpose(1, 2)
        step = FACA / gram.amax((1, 2))[:, None, None]
        correlation = archetypes @ x.T  # [S, R, N]
        for _ in range(inner):
            fit = _entropic(fit, step * (gram @ fit - correlation), 1)
        fit_gram = fit @ fit.transpose(1, 2)  # [S, R, R]
        target = fit @ x  # [S, R, K]
        step = FAC / (fit_gram.amax((1, 2)) * p_norm)[:, None, None]
        for _ in range(inner):
            gradient = (fit_gram @ (mix @ p) - target) @ p.T
            mix = _entropic(mix, step * gradient, 2)
    return mix


def _entropic(weights: torch.Tensor, gradient: torch.Tensor, dim: int) -> torch.Tensor:
    """One multiplicative update that keeps the weights on the simplex along `dim`."""
    return torch.softmax(weights.clamp_min(1e-30).log() - gradient, dim)
